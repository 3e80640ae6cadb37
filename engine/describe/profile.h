// What a run of a model holds and computes, phase by phase, and where each weight belongs: what the
// planner (plan.h) reckons with. Tracing the network gives it (engine/trace); processes without
// torch get it from one that has traced. Values; no torch.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/core/dtype.h"
#include "engine/core/kernel_counts.h"
#include "engine/describe/request.h"
#include "engine/describe/stage.h"

namespace kino::engine {

// Where a weight that a layer reads belongs (weights/weight_set.h).
struct WeightPlace {
  std::string name;
  // Groups of one part are used by the same phases.
  std::string part;
  std::string group;
  // The group's stack of blocks and its place there; -1: it is in none.
  int stack = -1;
  int block = -1;
  // Of computation.
  DType dtype = DType::kF32;
  // The matrix of a linear layer that may be quantized.
  bool may_quantize = false;
  // Layerwise casting reaches it.
  bool may_cast = false;
};

// Of one component; weights of the checkpoint that are not here are not read.
struct ComponentPlaces {
  std::string component;
  std::vector<WeightPlace> weights;
};

// What of a plan changes the activations.
struct PhaseVariant {
  std::optional<VaeTiling> vae_tiling;
  std::optional<int> chunk_feed_forward;
  bool operator==(const PhaseVariant&) const = default;
};

// A stretch of a run during which the same weights are needed.
struct PhaseNeed {
  Stage stage = Stage::kDenoise;
  // Whose weights it uses. Empty: none; it comes before the stage's weights reach the device.
  std::string component;
  std::string part;  // of that component
  // Most bytes of live tensors at a time, weights apart.
  int64_t device_activations = 0;
  int64_t host_activations = 0;  // on a GPU; on the CPU everything is in device_activations
  // Rows that go through its linear layers at a time.
  int64_t rows = 0;
  // Of one pass through the part's weights.
  double linear_flops = 0;  // what quantized arithmetic changes
  double attention_flops = 0;
  double convolution_flops = 0;
  KernelCounts kernels = {};  // of a GPU
  double passes = 1;
};

// Of one request on one kind of device in one dtype.
struct RunProfile {
  std::shared_ptr<const std::vector<ComponentPlaces>> places;
  std::vector<std::pair<PhaseVariant, std::vector<PhaseNeed>>> variants;
  // In the order in which the run goes through them. Nullptr: it was not asked for.
  const std::vector<PhaseNeed>* Phases(const PhaseVariant& variant) const {
    for (const auto& [each, phases] : variants) {
      if (each == variant) return &phases;
    }
    return nullptr;
  }
};

// Where a planner gets the profiles of one model, in one dtype, on one kind of device. Thread-safe.
class ProfileSource {
 public:
  virtual ~ProfileSource() = default;
  // Of an effective request, with all of `variants`; the request's own plan is not looked at.
  // UNAVAILABLE: nobody can tell now. Other errors: the model cannot be traced.
  virtual absl::StatusOr<RunProfile> Profile(const Request& request,
                                             const std::vector<PhaseVariant>& variants) = 0;
};

}  // namespace kino::engine
