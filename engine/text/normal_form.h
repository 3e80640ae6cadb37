// Lower case and Normalization Form C, by whichever version of Unicode the caller's tables are.
// Pure functions, thread-safe. All text is UTF-8.
//
// Source: Unicode Standard Annex #15; Unicode 14.0, sections 3.11 and 3.12.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace kino::engine {

// Letters first, first + step, ... last, whose lower case is `offset` behind each. Ascending in
// tables.
struct LowerRun {
  uint32_t first, last;
  int32_t step, offset;
};

// Appends the lower case of one letter, wherever it stands: U+0130 has two letters, Greek sigma its
// common form.
void AppendLower(char32_t c, std::span<const LowerRun> runs, std::string& to);

// What a version of Unicode knows beside the decompositions of version 14 (caption_tables.h).
struct NormalForms {
  // (first code point << 8 | Canonical_Combining_Class), ascending: each holds up to the next.
  std::span<const uint32_t> combining;
  // Characters that do not decompose yet in that version. Ascending.
  std::span<const uint32_t> unknown = {};
};

std::string NormalizeNfc(std::string_view text, const NormalForms& forms);

}  // namespace kino::engine
