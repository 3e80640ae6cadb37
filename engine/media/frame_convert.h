// Decoded frames of any pixel format to RGB, turned as their orientation says, with the colours
// that the ffmpeg program gives where nobody asks for others, and so diffusers' load_video:
// swscale's bicubic without full chroma or accurate rounding, whose last bits are the processor's.
// The frame's own matrix and range; where it names none, BT.601 at limited range whatever the size.
// RGB sources (FFV1's gbrp, H.264's) keep their pixels. One thread at a time. Included by .cc files
// only.
#pragma once

#include "absl/status/statusor.h"
#include "engine/media/ffmpeg_handles.h"
#include "engine/media/frames.h"

namespace kino::engine {

class FrameConverter {
 public:
  // orientation: EXIF's number, 1..8.
  explicit FrameConverter(int orientation) : orientation_(orientation) {}

  absl::StatusOr<RgbImage> Convert(const AVFrame& frame);

 private:
  absl::StatusOr<RgbImage> ToRgb(const AVFrame& frame);
  absl::Status Prepare(const AVFrame& frame);

  const int orientation_;
  SwsContextPtr sws_;
  AvFramePtr turned_;  // the planes of a frame that is turned before its colours are converted
  AvFramePtr rgb_;
  // What sws_ is for.
  int width_ = 0;
  int height_ = 0;
  int format_ = AV_PIX_FMT_NONE;
  int space_ = AVCOL_SPC_UNSPECIFIED;
  int range_ = AVCOL_RANGE_UNSPECIFIED;
};

}  // namespace kino::engine
