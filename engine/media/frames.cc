#include "engine/media/frames.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

namespace kino::engine {
namespace {

bool HasBytesAt(std::string_view bytes, size_t offset, std::string_view want) {
  return bytes.size() >= offset + want.size() && bytes.substr(offset, want.size()) == want;
}

// The brands that an ISO base media file (MP4, HEIF) names, its own first and then those it is
// compatible with.
std::vector<std::string_view> Brands(std::string_view bytes) {
  std::vector<std::string_view> brands;
  if (!HasBytesAt(bytes, 4, "ftyp") || bytes.size() < 12) return brands;
  size_t box = 0;
  for (size_t i = 0; i < 4; ++i) box = box << 8 | static_cast<unsigned char>(bytes[i]);
  brands.push_back(bytes.substr(8, 4));
  // Between them stands a version.
  for (size_t at = 16; at + 4 <= std::min(box, bytes.size()); at += 4) {
    brands.push_back(bytes.substr(at, 4));
  }
  return brands;
}

// "a HEIC picture" and the like; empty for a video.
std::string_view HeifName(std::string_view bytes) {
  const std::vector<std::string_view> brands = Brands(bytes);
  if (brands.empty()) return "";
  // These two say "pictures" and leave the codec to the others.
  const bool is_general = brands[0] == "mif1" || brands[0] == "msf1";
  for (const std::string_view brand : brands) {
    if (brand == "avif" || brand == "avis") return "an AVIF picture";
    for (const std::string_view heic : {"heic", "heix", "heim", "heis", "hevc", "hevx"}) {
      if (brand == heic) return "a HEIC picture";
    }
    if (!is_general) return "";
  }
  return "a HEIF picture";
}

// Packets of 188 bytes that each begin with a sync byte; M2TS puts 4 bytes before each, and some
// recorders 16 of parity behind.
bool IsMpegTs(std::string_view bytes) {
  constexpr size_t kNumPackets = 5;
  for (const auto& [first, size] : {std::pair(0, 188), std::pair(4, 192), std::pair(0, 204)}) {
    size_t count = 0;
    for (size_t at = first; at < bytes.size() && bytes[at] == 0x47; at += size) {
      if (++count == kNumPackets) return true;
    }
  }
  return false;
}

}  // namespace

std::string DescribeUnreadable(std::string_view bytes) {
  constexpr char kPictureAdvice[] = "; save it as PNG, JPEG or WebP";
  constexpr char kVideoAdvice[] = "; save it as MP4, WebM, Matroska or MPEG-TS";
  if (const std::string_view name = HeifName(bytes); !name.empty()) {
    return std::string(name) + kPictureAdvice;
  }
  const struct {
    size_t offset;
    std::string_view magic;
    const char* name;
    bool is_video;
  } kinds[] = {
      {0, "GIF8", "a GIF", false},
      {0, {"II*\0", 4}, "a TIFF picture", false},
      {0, {"MM\0*", 4}, "a TIFF picture", false},
      {8, "AVI ", "an AVI video", true},
      {0, "FLV\1", "a Flash video (FLV)", true},
      {0, "OggS", "an Ogg file", true},
      {0, "\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media (ASF) file", true},
      {0, {"\0\0\1\xba", 4}, "an MPEG program stream", true},
  };
  for (const auto& kind : kinds) {
    if (HasBytesAt(bytes, kind.offset, kind.magic)) {
      return std::string(kind.name) + (kind.is_video ? kVideoAdvice : kPictureAdvice);
    }
  }
  return "none of PNG, JPEG, WebP, MP4, WebM, Matroska and MPEG-TS";
}

std::optional<MediaType> SniffMediaType(std::string_view bytes) {
  if (HasBytesAt(bytes, 0, "\x89PNG\r\n\x1a\n")) return MediaType::kPng;
  if (HasBytesAt(bytes, 0, "\xff\xd8\xff")) return MediaType::kJpeg;
  if (HasBytesAt(bytes, 0, "RIFF") && HasBytesAt(bytes, 8, "WEBP")) return MediaType::kWebp;
  if (HasBytesAt(bytes, 4, "ftyp")) {
    return HeifName(bytes).empty() ? std::optional(MediaType::kMp4) : std::nullopt;
  }
  // QuickTime's files began with any box before "ftyp" came.
  for (const std::string_view box : {"moov", "mdat", "wide", "free", "skip"}) {
    if (HasBytesAt(bytes, 4, box)) return MediaType::kMp4;
  }
  if (HasBytesAt(bytes, 0, "\x1a\x45\xdf\xa3")) {
    // EBML: the document type stands within its first header, which is short.
    return bytes.substr(0, 64).find("webm") != std::string_view::npos ? MediaType::kWebm
                                                                      : MediaType::kMatroska;
  }
  if (IsMpegTs(bytes)) return MediaType::kMpegTs;
  return std::nullopt;
}

bool IsVideo(MediaType type) {
  return type == MediaType::kMp4 || type == MediaType::kMatroska || type == MediaType::kWebm ||
         type == MediaType::kMpegTs;
}

std::string_view MimeType(MediaType type) {
  switch (type) {
    case MediaType::kPng:
      return "image/png";
    case MediaType::kJpeg:
      return "image/jpeg";
    case MediaType::kWebp:
      return "image/webp";
    case MediaType::kMp4:
      return "video/mp4";
    case MediaType::kMatroska:
      return "video/x-matroska";
    case MediaType::kWebm:
      return "video/webm";
    case MediaType::kMpegTs:
      return "video/mp2t";
  }
  return "application/octet-stream";
}

absl::Status CheckSize(std::string_view what, int64_t width, int64_t height,
                       const MediaLimits& limits) {
  const auto named = absl::StrCat(absl::string_view(what.data(), what.size()), " is ", width, "x",
                                  height, " pixels");
  if (width <= 0 || height <= 0) {
    return absl::InvalidArgumentError(absl::StrCat(named, "; both sides must be at least 1"));
  }
  if (width > limits.max_side_px || height > limits.max_side_px) {
    return absl::ResourceExhaustedError(
        absl::StrCat(named, "; a side may have at most ", limits.max_side_px));
  }
  if (width * height > limits.max_pixels) {
    return absl::ResourceExhaustedError(
        absl::StrCat(named, "; at most ", limits.max_pixels, " pixels are read"));
  }
  const double ratio =
      static_cast<double>(std::max(width, height)) / static_cast<double>(std::min(width, height));
  if (ratio > limits.max_aspect_ratio) {
    return absl::ResourceExhaustedError(absl::StrCat(
        named, "; the longer side may be at most ", limits.max_aspect_ratio, " times the shorter"));
  }
  return absl::OkStatus();
}

void TurnPlane(const uint8_t* from, ptrdiff_t from_stride, int width, int height, int sample_bytes,
               int orientation, uint8_t* to, ptrdiff_t to_stride) {
  const bool is_transposed = orientation >= 5;
  // The source column runs backwards for 2, 3, 7, 8 and the source row for 3, 4, 6, 7: 5 is the
  // plain transpose, 6 turns by 90 degrees clockwise, 7 is the other diagonal, 8 turns
  // counter-clockwise.
  const bool flips_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool flips_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  // Where the next sample of a row, and the next row, lie in the source.
  const ptrdiff_t across = flips_x ? -sample_bytes : sample_bytes;
  const ptrdiff_t down = flips_y ? -from_stride : from_stride;
  if (flips_x) from += static_cast<ptrdiff_t>(width - 1) * sample_bytes;
  if (flips_y) from += (height - 1) * from_stride;
  const int out_width = is_transposed ? height : width;
  const int out_height = is_transposed ? width : height;
  for (int y = 0; y < out_height; ++y) {
    const uint8_t* sample = from + y * (is_transposed ? across : down);
    uint8_t* row = to + y * to_stride;
    for (int x = 0; x < out_width; ++x, row += sample_bytes) {
      for (int i = 0; i < sample_bytes; ++i) row[i] = sample[i];
      sample += is_transposed ? down : across;
    }
  }
}

RgbImage ApplyOrientation(RgbImage image, int orientation) {
  if (orientation < 2 || orientation > 8) return image;
  const bool is_transposed = orientation >= 5;
  RgbImage out;
  out.width = is_transposed ? image.height : image.width;
  out.height = is_transposed ? image.width : image.height;
  out.rgb.resize(image.rgb.size());
  TurnPlane(image.rgb.data(), ptrdiff_t{3} * image.width, image.width, image.height, 3, orientation,
            out.rgb.data(), ptrdiff_t{3} * out.width);
  return out;
}

void QuantizeFrames(const float* value, size_t count, uint8_t* out) {
  for (size_t i = 0; i < count; ++i) {
    const float scaled = std::nearbyint(value[i] * 255.0f);
    // Written so that a NaN, which compares false, becomes 0.
    out[i] = scaled > 0.0f ? static_cast<uint8_t>(std::min(scaled, 255.0f)) : uint8_t{0};
  }
}

}  // namespace kino::engine
