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
  if (const std::string_view name = NameOfUnreadable(bytes); !name.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("the image is ",
                                                   absl::string_view(name.data(), name.size()),
                                                   "; save it as PNG, JPEG or WebP"));
  }
  return absl::InvalidArgumentError("the image is not a PNG, JPEG or WebP file");
}

}  // namespace

absl::StatusOr<RgbImage> DecodeImage(std::string_view bytes, const MediaLimits& limits) {
  KINO_ASSIGN_OR_RETURN(StoredImage stored, DecodeStored(bytes, limits));
  return ApplyOrientation(std::move(stored.image), stored.orientation);
}

}  // namespace kino::engine
