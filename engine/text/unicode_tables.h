// The Unicode 17.0 data behind unicode.h, written by make_unicode_tables.py. Constant. Only
// unicode.cc reads it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kino::engine {

// (first code point << 8 | GraphemeClass), ascending: each row's class holds up to the next row.
extern const uint32_t kGraphemeBoundaries[];
extern const size_t kGraphemeBoundaryCount;

// Code points where "is a word character" flips, ascending, starting from "is not".
extern const uint32_t kWordBoundaries[];
extern const size_t kWordBoundaryCount;

}  // namespace kino::engine
