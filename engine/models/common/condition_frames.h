// Frames of a condition as networks take them. Pure functions.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/engine.h"

namespace kino::engine {

// `count` frames from `first` on, each resized to height x width by Lanczos as diffusers'
// VideoProcessor does: bytes [count, height, width, 3] on the
// host. Throws StatusError INVALID_ARGUMENT: the media has fewer frames. In a trace they have their
// shape alone.
at::Tensor ConditionFrames(const MediaInput& media, int64_t first, int64_t count, int height,
                           int width);

// Bytes as pixels in -1..1, computed in float32 on the host, with `options`.
at::Tensor PixelsOf(const at::Tensor& bytes, const at::TensorOptions& options);

}  // namespace kino::engine
