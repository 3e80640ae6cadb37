// What a CogVideoX checkpoint can do. No torch. Immutable, thread-safe.
#pragma once

#include "engine/describe/families.h"
#include "engine/samplers/ddim.h"

namespace kino::engine {

FamilyDescriber CogVideoXDescriber();

struct CogVideoXSchedule {
  DdimSchedule steps;
  // Of these the first that runs: a video that is changed by less than all comes in later.
  int first = 0;
};

// The schedule of an effective request, whose strength is its VIDEO's. INVALID_ARGUMENT: no steps.
absl::StatusOr<CogVideoXSchedule> MakeCogVideoXSchedule(const DdimConfig& sampler,
                                                        const Request& request);

}  // namespace kino::engine
