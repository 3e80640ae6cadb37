// RMS norm over the whole width, then rotary position embedding of interleaved pairs: what
// LTX-Video does to queries and keys (transformer_ltx.py: torch.nn.RMSNorm over all heads,
// apply_rotary_emb). The composed form is the specification and runs on every device and dtype;
// float32 on the CPU has a fused one.
#pragma once

#include <ATen/core/Tensor.h>

namespace kino::engine {

// Angles of every token: float32 [L, D / 2] each, on the compute device.
struct RotaryTable {
  at::Tensor cos;
  at::Tensor sin;
};

// x: [B, L, D], weight: [D] in x's dtype -> [B, L, D] in x's dtype. The norm is rounded to x's
// dtype; the rotation runs in float32. May use x's memory.
at::Tensor RmsRotary(at::Tensor x, const at::Tensor& weight, double eps, const RotaryTable& table);
at::Tensor RmsRotaryComposed(const at::Tensor& x, const at::Tensor& weight, double eps,
                             const RotaryTable& table);

}  // namespace kino::engine
