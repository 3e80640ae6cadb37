// Frames of a condition as networks take them. Pure functions.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "engine/engine.h"
#include "engine/models/common/image_processor.h"

namespace kino::engine {

// `count` frames from `first` on, each resized to height x width by Lanczos as diffusers'
// VideoProcessor does: bytes [count, height, width, 3] on the
// host. Throws StatusError INVALID_ARGUMENT: the media has fewer frames. In a trace they have their
// shape alone.
at::Tensor ConditionFrames(const MediaInput& media, int64_t first, int64_t count, int height,
                           int width);

// An image of zeros.
MediaInput BlackImage(int height, int width);

// A video as an encoder reads it, some frames at a time; any may be read again.
struct VideoSource {
  int64_t frames = 0, height = 0, width = 0;
  // As PixelsOf takes them, [count, height, width, 3] from frame `first` on.
  std::function<at::Tensor(int64_t first, int64_t count)> read;
};
// ConditionFrames of `media`, which outlives it, from the first on.
VideoSource ConditionVideo(const MediaInput& media, const VideoSize& size);

// Bytes as pixels in -1..1, computed in float32 on the host, with `options`. Pixels (floating
// point) stay what they are.
at::Tensor PixelsOf(const at::Tensor& bytes, const at::TensorOptions& options);

// A condition's picture as an image encoder takes it: see ImageProcessor::Process.
at::Tensor EncoderPixels(const ImageProcessor& processor, const MediaInput& media);
// The same of the frame that the VAE is given, which diffusers hands on as pixels in 0..1.
at::Tensor EncoderPixelsOfFrame(const ImageProcessor& processor, const MediaInput& media,
                                int height, int width);

}  // namespace kino::engine
