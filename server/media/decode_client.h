// Decodes an untrusted image or video by starting kino-media, and gives its frames. Nothing of the
// file is parsed in the calling process, and what kino-media says is checked before it is believed.
// Thread-safe: each call is a process of its own and blocks until that ends. No torch, no FFmpeg,
// no gRPC in here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/core/cancel.h"

namespace kino::media {

struct DecodeOptions {
  // The program; empty means the kino-media beside this program.
  std::string kino_media_path;
  // Decode everything and tell the size, the number of frames and the type, but keep no frame.
  bool is_probe = false;
  int max_side_px = 8192;
  int64_t max_pixels = 8192LL * 4096;
  double max_aspect_ratio = 20;
  int max_frames = 1024;
  int64_t max_output_bytes = 1LL << 30;
  int64_t max_input_bytes = 256LL << 20;
  int64_t memory_bytes = 1LL << 30;  // address space of the decoder, beyond its own libraries
  int cpu_seconds = 30;
  absl::Duration timeout = absl::Seconds(60);  // of real time, whoever uses the processors
  // Looked at while kino-media works, which is killed soon after it is set. May be null; else it
  // outlives the call.
  const engine::CancelToken* cancel = nullptr;
};

// What was in the file. Owns the frames' memory; movable, immutable.
class DecodedMedia {
 public:
  DecodedMedia() = default;
  ~DecodedMedia();
  DecodedMedia(DecodedMedia&& other) noexcept;
  DecodedMedia& operator=(DecodedMedia&& other) noexcept;

  int width() const { return width_; }
  int height() const { return height_; }
  int num_frames() const { return num_frames_; }  // 1 for an image
  int fps_num() const { return fps_num_; }        // 0 for an image, or when the video does not say
  int fps_den() const { return fps_den_; }
  double fps() const { return double(fps_num_) / fps_den_; }
  bool is_video() const { return !codec_.empty(); }
  // As found in the bytes: image/png, image/jpeg, image/webp, video/mp4, video/webm,
  // video/x-matroska, video/mp2t.
  const std::string& mime_type() const { return mime_type_; }
  const std::string& codec() const { return codec_; }  // of a video, one of kVideoCodecs
  // uint8 [H, W, 3], RGB; null after a probe. REQUIRES: 0 <= index < num_frames().
  const uint8_t* frame(int index) const;

 private:
  friend absl::StatusOr<DecodedMedia> ReadOutput(int fd, const DecodeOptions& options);

  int width_ = 0, height_ = 0, num_frames_ = 0, fps_num_ = 0, fps_den_ = 1;
  std::string mime_type_, codec_;
  void* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
};

// INVALID_ARGUMENT for a file that is broken or of no known kind; RESOURCE_EXHAUSTED when it passes
// a limit, processor time included; DEADLINE_EXCEEDED past the timeout; CANCELLED by the token;
// UNAVAILABLE when this system has no memory or descriptor left for it; UNIMPLEMENTED where
// kino-media is not installed; INTERNAL when it crashed. kino-media has ended and is reaped when
// the call returns, whatever it returns. `fd`: a readable file, read from its beginning, or a pipe;
// it stays open and the caller's.
absl::StatusOr<DecodedMedia> DecodeMedia(int fd, const DecodeOptions& options);
// The same of a file; NOT_FOUND when it cannot be opened.
absl::StatusOr<DecodedMedia> DecodeMediaFile(const std::string& path, const DecodeOptions& options);
// The same of bytes in memory, which are copied once.
absl::StatusOr<DecodedMedia> DecodeMediaBytes(std::string_view bytes, const DecodeOptions& options);

}  // namespace kino::media
