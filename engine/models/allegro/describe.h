// What an Allegro checkpoint can do. No torch. Immutable, thread-safe.
#pragma once

#include "engine/describe/families.h"

namespace kino::engine {

FamilyDescriber AllegroDescriber();

}  // namespace kino::engine
