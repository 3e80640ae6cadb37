// Channels to pixels and back, on frames kept channels last, [T, H, W, C]. Pure functions.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/core/stride3d.h"

namespace kino::engine {

// Channels to pixels, (c, t, h, w) from slow to fast.  x: [T, H, W, C * stride] -> [T * t, H * h, W
// * w, C].
at::Tensor DepthToSpace(const at::Tensor& x, const Stride3d& stride);

// Pixels to channels, the inverse.  x: [T * t, H * h, W * w, C] -> [T, H, W, C * stride].
at::Tensor SpaceToDepth(const at::Tensor& x, const Stride3d& stride);

}  // namespace kino::engine
