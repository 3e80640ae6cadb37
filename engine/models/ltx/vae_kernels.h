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

// A convolution over frames without padding in time and with half its kernel around height and
// width. On the CPU the weight is put in oneDNN's order for this one call: for wide layers that
// takes as long as several frames, so give it runs of them.
// x: [T, H, W, C], weight: [D, C, kt, kh, kw], bias: [D] -> [(T - kt) / t + 1, ..., D].
at::Tensor LtxConvolve(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                       const LtxVaeStride& stride);

}  // namespace kino::engine
