// How many positions in time, height and width become one, or one becomes. A value.
#pragma once

#include <cstdint>

namespace kino::engine {

struct Stride3d {
  int64_t t = 1;
  int64_t h = 1;
  int64_t w = 1;
  int64_t product() const { return t * h * w; }
  bool operator==(const Stride3d&) const = default;
};

}  // namespace kino::engine
