// The plan a job goes by: what the model's configuration says, the request's fields over it, and
// the limits that hold. Free functions over values.
#pragma once

#include <cstdint>

#include "engine/describe/request.h"
#include "server/config/config.h"

namespace kino::config {

// `plan` with its limits lowered to these; 0: no limit.
engine::Plan WithLimits(engine::Plan plan, int64_t max_device_memory, int64_t max_host_memory);

// A request may lower the model's limits and not raise them.
engine::Plan EffectivePlan(const ModelConfig& model, const engine::Plan& request);

}  // namespace kino::config
