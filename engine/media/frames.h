// Plain pixels: what the decoders give and the encoder takes, and the limits every untrusted
// picture is held against. Values without locks: immutable once filled, one thread at a time before
// that. Pixels are uint8 [H, W, C] with C = 3 in the order R, G, B, rows without padding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace kino::engine {

struct RgbImage {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> rgb;  // height * width * 3 bytes
};

// What a stranger's file may ask for; checked on declared sizes, before anything of that size is
// allocated.
struct MediaLimits {
  int max_side_px = 8192;
  int64_t max_pixels = 8192LL * 4096;  // of one picture or frame
  double max_aspect_ratio = 20;        // of the longer side to the shorter
  int max_frames = 1024;
  int64_t max_output_bytes = 1LL << 30;  // all decoded frames together
};

// The containers that can be read.
enum class MediaType { kPng, kJpeg, kWebp, kMp4, kMatroska, kWebm };

// The type by the first bytes; nullopt when it is none of ours. Names and declared types are never
// believed.
std::optional<MediaType> SniffMediaType(std::string_view bytes);
bool IsVideo(MediaType type);
// "a HEIC picture", "an AVIF picture", ...: what the file is, where it is none of ours and yet well
// known; else empty.
std::string_view NameOfUnreadable(std::string_view bytes);
std::string_view MimeType(MediaType type);

// INVALID_ARGUMENT when a side is not positive, RESOURCE_EXHAUSTED when a limit is passed. `what`
// opens the message.
absl::Status CheckSize(std::string_view what, int64_t width, int64_t height,
                       const MediaLimits& limits);

// EXIF's orientation 1..8 applied to the pixels, as Pillow's exif_transpose does it; other values
// leave them alone.
RgbImage ApplyOrientation(RgbImage image, int orientation);

// out[i] = round(value[i] * 255), ties to even, clamped: numpy's (x * 255).round().astype(uint8),
// as diffusers turns frames in 0..1 into pictures. A NaN becomes 0.
void QuantizeFrames(const float* value, size_t count, uint8_t* out);

}  // namespace kino::engine
