// How this folder's tables hold a class of every character. Pure function.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

namespace kino::engine {

// rows: (first code point << 8 | class), ascending; each class holds up to the next row, and 0 in
// front of the first.
inline uint8_t ClassOf(char32_t c, std::span<const uint32_t> rows) {
  const auto next =
      std::upper_bound(rows.begin(), rows.end(), static_cast<uint32_t>(c) << 8 | 0xFF);
  return next == rows.begin() ? uint8_t{0} : static_cast<uint8_t>(next[-1] & 0xFF);
}

}  // namespace kino::engine
