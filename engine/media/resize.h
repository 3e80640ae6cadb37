// Pillow's Image.resize on RGB bytes, bit for bit (Pillow 13.0): an area-aware window, the weights
// rounded to 22 fractional bits, two passes with bytes between them. Pure functions.
#pragma once

#include "absl/status/statusor.h"
#include "engine/media/frames.h"

namespace kino::engine {

// With LANCZOS, a window of three lobes. INVALID_ARGUMENT when a side of the source or the result
// is not positive.
absl::StatusOr<RgbImage> ResizeLanczos(const RgbImage& image, int width, int height);
// With BICUBIC. The same errors.
absl::StatusOr<RgbImage> ResizeBicubic(const RgbImage& image, int width, int height);

}  // namespace kino::engine
