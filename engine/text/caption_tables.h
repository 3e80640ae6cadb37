// What Python 3.11 knows of letters, normal forms and HTML's entities, written by
// make_caption_tables.py. Constant.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/text/normal_form.h"

namespace kino::engine {

extern const LowerRun kLowerRuns[];
extern const size_t kLowerRunCount;

// A character and its canonical decomposition, one step; no second part: 0. Hangul is not listed.
// Ascending.
struct Decomposition {
  uint32_t character, first, second;
  bool is_made;  // composition makes it of its parts
};
extern const Decomposition kDecompositions[];
extern const size_t kDecompositionCount;

// (first code point << 8 | Canonical_Combining_Class), ascending: each holds up to the next.
extern const uint32_t kCombiningBoundaries[];
extern const size_t kCombiningBoundaryCount;

// What stands for U+FF01 and those behind it in plain width; for most of them themselves.
extern const char* const kWidths[];
extern const size_t kWidthCount;

// html.entities.html5, by name in the order of bytes: with their semicolon, and those that may be
// without one twice.
struct HtmlEntity {
  const char* name;
  const char* text;
};
extern const HtmlEntity kHtmlEntities[];
extern const size_t kHtmlEntityCount;

}  // namespace kino::engine
