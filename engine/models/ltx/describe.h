// What an LTX-Video checkpoint can do, and the schedule a request gets from its sampler. No torch.
// Immutable, thread-safe.
#pragma once

#include "absl/status/statusor.h"
#include "engine/describe/families.h"
#include "engine/samplers/flow_match_euler.h"

namespace kino::engine {

FamilyDescriber LtxDescriber();

// Sigmas and timesteps of an effective request whose latents have so many tokens: the request's
// own, or diffusers' linspace(1, 1 / steps, steps), shifted by the sampler. INVALID_ARGUMENT: they
// come out of no use (NaN, say).
absl::StatusOr<FlowMatchSchedule> LtxSchedule(const FlowMatchEulerConfig& sampler,
                                              const Request& request, int64_t tokens);

}  // namespace kino::engine
