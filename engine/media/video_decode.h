// H.264, HEVC, AV1, VP9, VP8, FFV1, MPEG-4 part 2 and Motion JPEG in MP4, WebM, Matroska and
// MPEG-TS to RGB frames, through FFmpeg reading from memory alone: no protocol, no other container,
// codec or file is ever opened. Of several video tracks the default one is read, else the largest;
// sound and subtitles are not looked at. One call per thread at a time; for untrusted bytes call it
// in kino-media's sandbox (server/media).
//
// The frames are those of diffusers' load_video, which has the ffmpeg program make them: its
// colours (frame_convert.h) at a constant rate (frame_timing.h), the one that FFmpeg guesses of the
// track, so that a variable rate is padded and thinned. Rotations by quarter turns and mirrors in
// the display matrix are applied; other angles are refused. Pixel aspect ratio is ignored.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/media/frame_rate.h"
#include "engine/media/frames.h"

namespace kino::engine {

struct VideoInfo {
  int width = 0;
  int height = 0;
  int num_frames = 0;
  FrameRate frame_rate;  // of the frames given
  std::string codec;     // one of kVideoCodecs
};

// Called with each frame in the order of showing, width and height the same for all. An error ends
// the decoding.
using FrameSink = std::function<absl::Status(const RgbImage& frame)>;

// INVALID_ARGUMENT for what is none of these, broken or truncated; RESOURCE_EXHAUSTED past a limit;
// the sink's error; UNIMPLEMENTED in a build without media.
absl::StatusOr<VideoInfo> DecodeVideo(std::string_view bytes, const MediaLimits& limits,
                                      const FrameSink& sink);

}  // namespace kino::engine
