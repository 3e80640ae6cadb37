// What families ask of a request's conditions. No torch. Pure functions.
#pragma once

#include <vector>

#include "engine/describe/request.h"

namespace kino::engine {

// "CONTROL_VIDEO", as the API spells it.
const char* ConditionKindName(ConditionKind kind);

// Appends what is wrong unless there is exactly one condition, of this kind, from frame 0 on, and,
// if `fully`, with strength 1.
void ExpectOneCondition(const Request& request, ConditionKind kind, bool fully,
                        std::vector<FieldViolation>& violations);

// The same of two images, one that the video begins with and one that it ends with. REQUIRES: two
// conditions, and num_frames.
void ExpectFirstAndLastImage(const Request& request, std::vector<FieldViolation>& violations);

}  // namespace kino::engine
