#include "engine/media/frame_rate.h"

#include <cmath>
#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace kino::engine {

absl::StatusOr<FrameRate> ToFrameRate(double fps) {
  if (!(fps >= 0.01 && fps <= 1000)) {
    return absl::InvalidArgumentError(absl::StrCat("fps is ", fps, "; expected 0.01 to 1000"));
  }
  constexpr double kTypingError = 1e-3;  // 23.976 stands for 23.97602...
  const int nominal = static_cast<int>(std::lround(fps * 1.001));
  if ((nominal % 24 == 0 || nominal % 30 == 0) && nominal > 0 &&
      std::abs(fps - nominal / 1.001) < kTypingError) {
    return FrameRate{nominal * 1000, 1001};
  }
  FrameRate best{static_cast<int>(std::lround(fps)), 1};
  for (int den = 1; den <= 1001; ++den) {
    const FrameRate candidate{static_cast<int>(std::lround(fps * den)), den};
    if (candidate.num < 1) continue;
    // A larger denominator must be closer by more than rounding noise.
    if (std::abs(candidate.value() - fps) < std::abs(best.value() - fps) - 1e-9) best = candidate;
  }
  return best;
}

}  // namespace kino::engine
