// Frame rates as exact fractions. Pure functions.
#pragma once

#include "absl/status/statusor.h"

namespace kino::engine {

struct FrameRate {
  int num = 0;
  int den = 1;

  double value() const { return static_cast<double>(num) / den; }
};

// The fraction a person means: 24 -> 24/1, 12.5 -> 25/2, and the television rates (multiples of 24
// and 30 over 1.001, however many digits are given): 23.976 -> 24000/1001, 29.97 -> 30000/1001.
// Else the closest one with a denominator of at most 1001. INVALID_ARGUMENT outside 0.01..1000, NaN
// included.
absl::StatusOr<FrameRate> ToFrameRate(double fps);

}  // namespace kino::engine
