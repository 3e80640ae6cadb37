// What a Mochi-1 checkpoint can do. No torch. Immutable, thread-safe.
#pragma once

#include "engine/describe/families.h"
#include "engine/samplers/flow_match_euler.h"

namespace kino::engine {

FamilyDescriber MochiDescriber();

// Sigmas and timesteps of an effective request (pipeline_mochi.py: linear_quadratic_schedule).
// INVALID_ARGUMENT: they come out of no use.
absl::StatusOr<FlowMatchSchedule> MochiSchedule(const FlowMatchEulerConfig& sampler,
                                                const Request& request);

}  // namespace kino::engine
