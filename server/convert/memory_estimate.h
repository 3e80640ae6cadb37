// What the planner (engine/describe/plan.h) says, as kino.v1.MemoryEstimate: shared by the frontend
// and kino-render. Free functions over values; thread-safe. No torch.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/describe/plan.h"
#include "kino/v1/models.pb.h"

namespace kino::convert {

v1::PlanEstimate FromEngine(const engine::PlanEstimate& estimate);
v1::KernelCounts FromEngine(const engine::KernelCounts& kernels);

// Stands for a prompt that is not known yet, in bytes: it fills every text token, so that estimates
// are not too low.
inline constexpr size_t kUnknownPromptBytes = 1024;

struct Placement {
  std::string device;                // "cpu", "cuda:0"
  engine::ComputeDTypes dtype = {};  // "auto" is settled
  engine::DeviceSpec spec = {};
  // Of the model on such a device, in these types.
  std::shared_ptr<engine::ProfileSource> profiles = nullptr;
  bool allow_lossy = false;
};

// The plans for `request` (effective; its plan is what they keep to), the chosen one marked or the
// refusal set. INVALID_ARGUMENT: the plan does not parse.
absl::StatusOr<v1::MemoryEstimate> EstimateMemory(const engine::ModelDescription& model,
                                                  const engine::Request& request,
                                                  const Placement& placement);

}  // namespace kino::convert
