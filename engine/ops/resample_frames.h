// Videos kept channels last, [T, H, W, C], made larger and smaller by two. In time, where the
// number of frames is odd, the first stands by itself (diffusers 0.42.1 models/upsampling.py
// CogVideoXUpsample3D and models/downsampling.py CogVideoXDownsample3D, without their
// convolutions). Pure functions.
#pragma once

#include <ATen/core/Tensor.h>

namespace kino::engine {

// Each pixel twice along height and width, and each frame twice if `in_time`: nearest neighbours.
at::Tensor DoubleNearest(const at::Tensor& x, bool in_time);
// The same into `out`, [T * times, 2 H, 2 W, C], which may be a part of a larger buffer: each frame
// so many times.
void DoubleNearestInto(const at::Tensor& x, int64_t times, const at::Tensor& out);

// The mean of each two frames.
at::Tensor MeanOfFramePairs(const at::Tensor& x);

}  // namespace kino::engine
