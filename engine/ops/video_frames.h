// What a VAE's decoder gives as final frames. Source: diffusers 0.42.1 image_processor.py
// (denormalize: in the VAE's dtype, then float32) and utils/export_utils.py (numbers as bytes).
// Pure functions.
#pragma once

#include <ATen/core/Tensor.h>

namespace kino::engine {

// pixels: [..., 3] in -1..1, what lies outside is clamped -> the same shape in 0..1, float32 in
// host memory, contiguous. The host waits for the device.
at::Tensor FramesAsFloats(const at::Tensor& pixels);

// The same as bytes on `pixels`' device: 255 times FramesAsFloats, to the nearest, ties to even;
// NaN is 0. One pass over the pixels.
at::Tensor FramesAsBytes(const at::Tensor& pixels);
at::Tensor FramesAsBytesComposed(const at::Tensor& pixels);

}  // namespace kino::engine
