// One decoder per image format, behind DecodeImage. Each checks the declared size against the
// limits before it allocates, gives RGB as stored (not yet turned) and the orientation its metadata
// names. Pure functions.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/media/frames.h"

namespace kino::engine {

struct StoredImage {
  RgbImage image;
  int orientation = 1;  // EXIF's numbers, 1..8
};

absl::StatusOr<StoredImage> DecodePng(std::string_view bytes, const MediaLimits& limits);
absl::StatusOr<StoredImage> DecodeJpeg(std::string_view bytes, const MediaLimits& limits);
absl::StatusOr<StoredImage> DecodeWebp(std::string_view bytes, const MediaLimits& limits);

}  // namespace kino::engine
