// What an LTX-Video checkpoint can do. No torch. Immutable, thread-safe.
#pragma once

#include "engine/describe/families.h"

namespace kino::engine {

FamilyDescriber LtxDescriber();

}  // namespace kino::engine
