// H.264, VP9 and FFV1 in MP4, WebM and Matroska to RGB frames, through FFmpeg reading from memory
// alone: no protocol, no other container, codec or file is ever opened. The first video track is
// read, sound and subtitles are not looked at. One call per thread at a time; for untrusted bytes
// call it in kino-media's sandbox (server/media).
//
// Colour: the frame's own matrix and range; where it names none, BT.601 at limited range whatever
// the size, as the ffmpeg program does (and so diffusers' load_video). RGB sources (FFV1's gbrp,
// H.264's) keep their pixels. Rotations by quarter turns and mirrors in the display matrix are
// applied; other angles are refused. Pixel aspect ratio is ignored. Every shown frame is given
// once; a variable rate is neither padded nor thinned.
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
  FrameRate frame_rate;  // the track's average; 0/1 when it does not say
  std::string codec;     // "h264", "vp9" or "ffv1"
};

// Called with each frame in the order of showing, width and height the same for all. An error ends
// the decoding.
using FrameSink = std::function<absl::Status(RgbImage frame)>;

// INVALID_ARGUMENT for what is none of these, broken or truncated; RESOURCE_EXHAUSTED past a limit;
// the sink's error; UNIMPLEMENTED in a build without media.
absl::StatusOr<VideoInfo> DecodeVideo(std::string_view bytes, const MediaLimits& limits,
                                      const FrameSink& sink);

}  // namespace kino::engine
