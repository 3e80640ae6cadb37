#include "engine/media/image_decode.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/status.h"
#include "engine/media/image_formats.h"

namespace kino::engine {
namespace {

absl::StatusOr<StoredImage> DecodeStored(std::string_view bytes, const MediaLimits& limits) {
  const std::optional<MediaType> type = SniffMediaType(bytes);
  if (type == MediaType::kPng) return DecodePng(bytes, limits);
  if (type == MediaType::kJpeg) return DecodeJpeg(bytes, limits);
  if (type == MediaType::kWebp) return DecodeWebp(bytes, limits);
  if (type) return absl::InvalidArgumentError("the image is a video; save a frame of it as PNG");
  return absl::InvalidArgumentError(absl::StrCat("the image is ", DescribeUnreadable(bytes)));
}

}  // namespace

absl::StatusOr<RgbImage> DecodeImage(std::string_view bytes, const MediaLimits& limits) {
  KINO_ASSIGN_OR_RETURN(StoredImage stored, DecodeStored(bytes, limits));
  return ApplyOrientation(std::move(stored.image), stored.orientation);
}

}  // namespace kino::engine
