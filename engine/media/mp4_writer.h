// Frames in, a fragmented MP4 with one H.264 track out, as a stream of bytes that is only ever
// appended to. One thread at a time; the writer owns its encoder, the caller owns the sink. Every
// fragment begins with a key frame and is handed over when its last frame has been given: the
// encoder holds no frame back (no B-frames, no lookahead). Lossy colour is BT.709 at limited range
// in 4:2:0 and tagged so; lossless is RGB 4:4:4. The same frames, options and libx264 give the same
// bytes: no time, no path, no machine is written. FFmpeg 5.1, ISO/IEC 14496-12.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kino::engine {

enum class H264Encoder {
  kX264,
  kNvenc,           // refused with UNAVAILABLE when the device or its driver has none
  kNvencIfPresent,  // else libx264; so the bytes depend on the machine
};

struct Mp4Options {
  int width = 0;    // even, 2..8192
  int height = 0;   // even, 2..8192
  double fps = 24;  // written as the fraction ToFrameRate gives
  // 0 (smallest) to 100 (best): libx264's crf, or NVENC's cq, is 48 - 0.4 * quality, so 75 is
  // crf 18.
  int quality = 75;
  // The very pixels (libx264rgb, High 4:4:4 Predictive, qp 0). REQUIRES kX264 or kNvencIfPresent,
  // which then is kX264.
  bool lossless = false;
  H264Encoder encoder = H264Encoder::kX264;
  // The CUDA device that NVENC encodes on, as CUDA counts them; -1: the first that can.
  int gpu = -1;
  // Frames in a fragment; 0 means half a second, within 4..24.
  int fragment_frames = 0;
  // Encoder threads, 1..16; each codes one slice, so the bytes depend on this number but never on
  // the machine's cores.
  int threads = 4;
};

// Called with the file's head once, then with one whole fragment at a time: any prefix of calls is
// a playable file. An error ends the writing and is returned from the call that met it.
using ByteSink = std::function<absl::Status(std::string_view bytes)>;

class Mp4Writer {
 public:
  // Opens the encoder and hands the head to the sink. INVALID_ARGUMENT names the option that is
  // wrong; UNAVAILABLE when the encoder asked for is missing; UNIMPLEMENTED in a build without
  // FFmpeg.
  static absl::StatusOr<std::unique_ptr<Mp4Writer>> Create(const Mp4Options& options,
                                                           ByteSink sink);
  ~Mp4Writer();
  Mp4Writer(const Mp4Writer&) = delete;
  Mp4Writer& operator=(const Mp4Writer&) = delete;

  // rgb: [H, W, 3] uint8, read before the call returns. Blocks while it encodes.
  absl::Status AddFrame(const uint8_t* rgb);

  // Hands over the last fragment. FAILED_PRECONDITION when no frame was given. REQUIRES: called at
  // most once, last.
  absl::Status Finish();

  // The encoder in use, such as "libx264".
  std::string_view encoder_name() const;

 private:
  struct Stream;
  explicit Mp4Writer(std::unique_ptr<Stream> stream);

  std::unique_ptr<Stream> stream_;
};

}  // namespace kino::engine
