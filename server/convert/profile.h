// Profiles of runs (engine/describe/profile.h) as messages of the worker link. Free functions over
// values; thread-safe. No torch.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "engine/describe/profile.h"
#include "kino/v1/worker.pb.h"

namespace kino::convert {

v1::Plan FromEngine(const engine::PhaseVariant& variant);
// What else the plan sets is not looked at.
engine::PhaseVariant VariantOf(const v1::Plan& plan);

// `places`: of `profile` are written too.
v1::RunProfile FromEngine(const engine::RunProfile& profile, bool places);
// Places are left out when the message has none. INVALID_ARGUMENT: a stage or a dtype that does not
// exist, or a number below zero.
absl::StatusOr<engine::RunProfile> ToEngine(const v1::RunProfile& profile);

}  // namespace kino::convert
