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
  std::vector<std::string> components;
  for (const engine::ComponentDescription& component : description.components) {
    if (component.weight_bytes > 0) components.push_back(component.name);
  }
  std::vector<engine::FieldViolation> violations;
  engine::CheckWeightPlan(model.plan, components, violations);
  if (violations.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("its configured ", violations.front().field, ": ",
                                                 violations.front().description));
}

}  // namespace kino::config
