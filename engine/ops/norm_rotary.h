// Norm of queries and keys, then rotary position embedding of interleaved pairs.
//
// LTX-Video norms over the whole width (transformer_ltx.py: torch.nn.RMSNorm, apply_rotary_emb),
// Mochi over each head and turns the video's tokens only (attention_processor.py:
// MochiAttnProcessor2_0), CogVideoX has a layer norm of each head (CogVideoXAttnProcessor2_0), all
// of diffusers 0.42.1. The composed form is the specification and runs
// on every device and dtype; float32 and bfloat16 on the CPU, and CUDA, have fused ones.
#pragma once

#include <ATen/core/Tensor.h>

namespace kino::engine {

// Angles of every token from `first` on, those before it are not turned: float32 [L - first, D / 2]
// each, on the compute device, those of a head's pairs behind those of the head before; or
// [L - first, W / 2], where all heads have the same. Undefined: nothing is turned.
struct RotaryTable {
  at::Tensor cos;
  at::Tensor sin;
  int64_t first = 0;
};

// x: [B, L, D], weight: [W] in x's dtype, where W divides D: each W numbers are normed by
// themselves, a head or the whole width -> [B, L, D] in x's dtype. It is an RMS norm; given a bias,
// [W] in x's dtype, a layer norm. The norm is rounded to x's dtype; the rotation runs in float32.
// May use x's memory.
at::Tensor NormRotary(at::Tensor x, const at::Tensor& weight, double eps,
                      const RotaryTable& table = {}, const at::Tensor& bias = {});
at::Tensor NormRotaryComposed(const at::Tensor& x, const at::Tensor& weight, double eps,
                              const RotaryTable& table = {}, const at::Tensor& bias = {});
// The same into `out`, [B, L, D], which may be a stretch of a longer sequence.
void NormRotaryInto(const at::Tensor& x, const at::Tensor& weight, double eps,
                    const RotaryTable& table, at::Tensor out, const at::Tensor& bias = {});

}  // namespace kino::engine
