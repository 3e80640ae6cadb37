// What a CogVideoX checkpoint can do. No torch. Immutable, thread-safe.
#pragma once

#include "engine/describe/families.h"

namespace kino::engine {

FamilyDescriber CogVideoXDescriber();

}  // namespace kino::engine
