#include "server/config/effective_plan.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/describe/weight_plan.h"

namespace kino::config {

engine::Plan WithLimits(engine::Plan plan, int64_t max_device_memory, int64_t max_host_memory) {
  const auto lower = [](std::optional<int64_t>& limit, int64_t most) {
    if (most > 0) limit = std::min(limit.value_or(most), most);
  };
  lower(plan.max_device_memory, max_device_memory);
  lower(plan.max_host_memory, max_host_memory);
  return plan;
}

engine::Plan EffectivePlan(const ModelConfig& model, const engine::Plan& request) {
  return WithLimits(engine::MergePlans(model.plan, request),
                    model.plan.max_device_memory.value_or(0),
                    model.plan.max_host_memory.value_or(0));
}

absl::Status CheckModelPlan(const ModelConfig& model, const engine::ModelDescription& description) {
  std::vector<engine::FieldViolation> violations;
  engine::CheckWeightPlan(model.plan, description.WeightedComponents(), violations);
  absl::Status status = engine::FirstViolation(violations);
  if (status.ok()) status = model.dtype.Check(description.WeightedComponents());
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat("its configured ", status.message()));
}

}  // namespace kino::config
