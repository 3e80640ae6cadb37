// Arithmetic of the LTX-Video VAE on frames kept channels last: [T, H, W, C], contiguous.
//
// Each function has a composed form that is its specification and runs on every device and dtype;
// float32 and bfloat16 on the CPU have fused ones. Rounding points are diffusers': in half
// precision each step rounds to the tensors' dtype. Source: diffusers 0.42.1
// models/normalization.py RMSNorm, models/autoencoders/autoencoder_kl_ltx.py.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/models/ltx/vae_config.h"

namespace kino::engine {

// Per-channel shift and scale behind a norm; undefined tensors mean none.
struct LtxVaeModulation {
  at::Tensor shift;           // [C], in the frames' dtype
  at::Tensor scale_plus_one;  // [C], in the frames' dtype
};

// out = SiLU(x / sqrt(mean over channels of x^2 + 1e-8) * (1 + scale) + shift). `out` may be a part
// of a larger buffer. x, out: [T, H, W, C].
void LtxNormSilu(const at::Tensor& x, const LtxVaeModulation& modulation, at::Tensor out);
void LtxNormSiluComposed(const at::Tensor& x, const LtxVaeModulation& modulation, at::Tensor out);

// Channels to pixels, (c, t, h, w) from slow to fast.  x: [T, H, W, C * stride] -> [T * t, H * h, W
// * w, C].
at::Tensor LtxDepthToSpace(const at::Tensor& x, const LtxVaeStride& stride);
at::Tensor LtxDepthToSpaceComposed(const at::Tensor& x, const LtxVaeStride& stride);

// Pixels to channels, the inverse.  x: [T * t, H * h, W * w, C] -> [T, H, W, C * stride].
at::Tensor LtxSpaceToDepth(const at::Tensor& x, const LtxVaeStride& stride);

// A copy of `weight` in the order oneDNN likes best for inputs of `input_shape` ([T, H, W, C];
// other sizes work too); undefined where oneDNN is not used. Packed once, the many calls of a
// streaming decode do not each reorder the weight, which for wide layers and few frames costs more
// than the convolution.
at::Tensor LtxPackConvolution(const at::Tensor& weight, const LtxVaeStride& stride,
                              at::IntArrayRef input_shape);

// A convolution over frames without padding in time and with half its kernel around height and
// width. x: [T, H, W, C], weight: [D, C, kt, kh, kw], bias: [D] -> [(T - kt) / t + 1, ..., D].
// packed: LtxPackConvolution of the weight, or undefined.
at::Tensor LtxConvolve(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& packed,
                       const at::Tensor& bias, const LtxVaeStride& stride);

}  // namespace kino::engine
