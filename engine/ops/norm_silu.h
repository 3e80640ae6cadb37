// Norms of the VAEs with the SiLU behind them, on frames kept channels last: [T, H, W, C].
//
// Each function has a composed form that is its specification and runs on every device and dtype;
// float32 and bfloat16 on the CPU, and CUDA, have fused ones. In half precision each step rounds to
// the tensors' dtype, as diffusers 0.42.1 does (models/normalization.py RMSNorm,
// autoencoder_kl_ltx.py, autoencoder_kl_mochi.py, autoencoder_kl_cogvideox.py).
#pragma once

#include <ATen/core/Tensor.h>

namespace kino::engine {

// Per-channel shift and scale behind a norm; undefined tensors mean none.
struct ChannelModulation {
  at::Tensor shift;           // [C], in the frames' dtype
  at::Tensor scale_plus_one;  // [C], in the frames' dtype
};

// out = SiLU(x / sqrt(mean over channels of x^2 + 1e-8) * (1 + scale) + shift). `out` may be a part
// of a larger buffer. x, out: [T, H, W, C].
void RmsNormSilu(const at::Tensor& x, const ChannelModulation& modulation, at::Tensor out);
void RmsNormSiluComposed(const at::Tensor& x, const ChannelModulation& modulation, at::Tensor out);

// torch.nn.GroupNorm over one frame at a time. For a norm over several frames at once they are
// given as one tall frame.
struct FrameGroupNorm {
  int64_t groups = 32;
  double eps = 1e-5;
  at::Tensor weight;  // [C], in the frames' dtype
  at::Tensor bias;    // [C], in the frames' dtype
};

// out = SiLU(GroupNorm(x)). `out` may be a part of a larger buffer.
// x, out: [T, H, W, C].
void GroupNormSilu(const at::Tensor& x, const FrameGroupNorm& norm, at::Tensor out);
void GroupNormSiluComposed(const at::Tensor& x, const FrameGroupNorm& norm, at::Tensor out);

// GroupNorm and SiLU in two, for a clip that is normed as a whole and taken some frames at a time:
// GroupNorm(x) = x * gain + shift, for each channel.  x: [T, H, W, C] -> gain, then shift, [T, 2,
// C] float32.
at::Tensor GroupNormAffine(const at::Tensor& x, const FrameGroupNorm& norm);
at::Tensor GroupNormAffineComposed(const at::Tensor& x, const FrameGroupNorm& norm);
// out = SiLU(x * gain + shift), rounded behind the sum and the SiLU. affine: [T, 2, C], or [1, 2,
// C] for all frames. `out` may be a part of a larger buffer. x, out: [T, H, W, C].
void AffineSilu(const at::Tensor& x, const at::Tensor& affine, at::Tensor out);
void AffineSiluComposed(const at::Tensor& x, const at::Tensor& affine, at::Tensor out);

// Scale and shift of every position, at a lower resolution: [t, h, w, C] each, in the frames'
// dtype, contiguous; undefined tensors mean none.
struct NearestModulation {
  at::Tensor scale, shift;
};

// out = SiLU(GroupNorm(x) * scale + shift), the norm over all frames at once, scale and shift those
// of the nearest position (CogVideoXSpatialNorm3D). h and w divide H and W, and t divides T; where
// T is odd and more than 1, the first frame of each stands by itself and t - 1 divides T - 1. x,
// out: [T, H, W, C], contiguous.
void GroupNormModulateSilu(const at::Tensor& x, const FrameGroupNorm& norm,
                           const NearestModulation& modulation, at::Tensor out);
void GroupNormModulateSiluComposed(const at::Tensor& x, const FrameGroupNorm& norm,
                                   const NearestModulation& modulation, at::Tensor out);

}  // namespace kino::engine
