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

// A weight as the checkpoint holds it.
struct WeightTensor {
  std::string name;
  std::vector<int64_t> shape;
  DType dtype = DType::kF32;
  int64_t bytes = 0;     // in the file, all that belongs to it
  int64_t elements = 0;  // once decoded
  // It is quantized in the file (GGUF's blocks, bitsandbytes): bytes are its stored form's.
  bool is_quantized = false;
};

// Where a weight belongs, as the family's layers have it (weights/weight_set.h).
struct WeightPlace {
  // The checkpoint's, but no layer reads it.
  bool is_unused = false;
  // Groups of one part are used by the same phases.
  std::string part;
  std::string group;
  // Place of the group among the part's blocks; -1: it is none.
  int block = -1;
  // The matrix of a linear layer that may be quantized.
  bool may_quantize = false;
  // Layerwise casting reaches it.
  bool may_cast = false;
  // Computed in float32 where the rest is in float16.
  bool float16_is_float32 = false;
};

// What the activations depend on beside the request.
struct PhaseOptions {
  DType dtype = DType::kF32;
  bool on_gpu = false;
  std::optional<VaeTiling> vae_tiling;
  std::optional<int> chunk_feed_forward;
};

// A stretch of a run during which the same weights are needed.
struct PhaseNeed {
  Stage stage = Stage::kDenoise;
  std::string component;  // whose weights it uses
  std::string part;       // of that component
  // Most bytes of live tensors at a time, weights apart.
  int64_t device_activations = 0;
  int64_t host_activations = 0;  // on a GPU; on the CPU everything is in device_activations
  // Rows that go through its linear layers at a time.
  int64_t rows = 0;
  // Of one pass through the part's weights.
  double linear_flops = 0;  // what quantized arithmetic changes
  double attention_flops = 0;
  double convolution_flops = 0;
  int64_t passes = 1;
};

}  // namespace kino::engine
