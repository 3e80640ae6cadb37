// What a family tells the planner (plan.h) of a checkpoint: where each weight belongs, and what the
// phases of a run need. Values only; no torch.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/core/dtype.h"
#include "engine/describe/request.h"
#include "engine/describe/stage.h"

namespace kino::engine {

// A weight tensor as the checkpoint holds it.
struct WeightTensor {
  std::string name;
  std::vector<int64_t> shape;
  DType dtype = DType::kF32;
  int64_t bytes = 0;     // in the file
  int64_t elements = 0;  // once decoded
  // Of a tensor that is quantized in the file ("Q4_K", "nf4"): bytes are its stored form's.
  std::string format;
};

enum class WeightKind {
  kLinear,       // the matrix of a linear layer: what quantization reaches
  kConvolution,  // cast, not quantized
  kEmbedding,    // cast, not quantized
  kOther,        // biases, norms, tables
};

// Where a weight belongs.
struct WeightPlace {
  // Parts of a component are used by different phases; with any offload they come and go apart.
  int part = 0;
  // Index among the part's blocks, in the order they are used; -1: in no block.
  int block = -1;
  WeightKind kind = WeightKind::kOther;
  // Layerwise casting leaves it in the compute dtype.
  bool skips_casting = false;
  // What it is computed in, when that is not the plan's dtype.
  std::optional<DType> compute_dtype = std::nullopt;
};

// What the activations depend on beside the request.
struct PhaseOptions {
  DType dtype = DType::kF32;
  bool on_gpu = false;
  std::optional<VaeTiling> vae_tiling;
  std::optional<int> chunk_feed_forward;
  // The autoencoder's weights come and go: nothing is derived from them that would stay.
  bool autoencoder_is_offloaded = false;
};

// A stretch of a run during which the same weights are needed.
struct PhaseNeed {
  Stage stage = Stage::kDenoise;
  std::string component;   // whose weights it uses; empty: none
  std::vector<int> parts;  // of that component
  // Most bytes of live tensors at a time, weights apart.
  int64_t device_activations = 0;
  int64_t host_activations = 0;  // on a GPU; on the CPU everything is in device_activations
  // Of one pass through the component's weights.
  double linear_flops = 0;  // linear layers; what float8 arithmetic speeds up
  double attention_flops = 0;
  double convolution_flops = 0;
  int64_t passes = 1;
};

}  // namespace kino::engine
