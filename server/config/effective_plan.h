// The plan a job goes by: what the model's configuration says, the request's fields over it, and
// the limits that hold. Free functions over values.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "engine/describe/describe.h"
#include "engine/describe/request.h"
#include "server/config/config.h"

namespace kino::config {

// `plan` with its limits lowered to these; 0: no limit.
engine::Plan WithLimits(engine::Plan plan, int64_t max_device_memory, int64_t max_host_memory);

// A request may lower the model's limits and not raise them.
engine::Plan EffectivePlan(const ModelConfig& model, const engine::Plan& request);

// What is wrong with the model's configured plan and dtype, now that its components are known.
// INVALID_ARGUMENT names the field.
absl::Status CheckModelPlan(const ModelConfig& model, const engine::ModelDescription& description);

}  // namespace kino::config
