// Plain pixels: what the decoders give and the encoder takes, and the limits every untrusted
// picture is held against. Values without locks: immutable once filled, one thread at a time before
// that. Pixels are uint8 [H, W, C] with C = 3 in the order R, G, B, rows without padding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
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
enum class MediaType { kPng, kJpeg, kWebp, kMp4, kMatroska, kWebm, kMpegTs };

// The codecs of a video that can be read, by FFmpeg's names for them.
inline constexpr std::string_view kVideoCodecs[] = {"h264", "hevc", "av1",   "vp9",
                                                    "vp8",  "ffv1", "mpeg4", "mjpeg"};

// The type by the first bytes; nullopt when it is none of ours. Names and declared types are never
// believed.
std::optional<MediaType> SniffMediaType(std::string_view bytes);
bool IsVideo(MediaType type);
// Completes "the file is ..." for bytes that are none of ours: what they are, where that is well
// known, and what to save them as.
std::string DescribeUnreadable(std::string_view bytes);
std::string_view MimeType(MediaType type);

// INVALID_ARGUMENT when a side is not positive, RESOURCE_EXHAUSTED when a limit is passed. `what`
// opens the message.
absl::Status CheckSize(std::string_view what, int64_t width, int64_t height,
                       const MediaLimits& limits);

// A plane of width x height samples turned by EXIF's orientation 1..8; from 5 on the turned one has
// the sides exchanged. Strides in bytes. The planes do not overlap.
void TurnPlane(const uint8_t* from, ptrdiff_t from_stride, int width, int height, int sample_bytes,
               int orientation, uint8_t* to, ptrdiff_t to_stride);

// EXIF's orientation 1..8 applied to the pixels, as Pillow's exif_transpose does it; other values
// leave them alone.
RgbImage ApplyOrientation(RgbImage image, int orientation);

// out[i] = round(value[i] * 255), ties to even, clamped: numpy's (x * 255).round().astype(uint8),
// as diffusers turns frames in 0..1 into pictures. A NaN becomes 0.
void QuantizeFrames(const float* value, size_t count, uint8_t* out);

}  // namespace kino::engine
