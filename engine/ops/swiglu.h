// SwiGLU (arXiv 2002.05202): one half of the numbers, gated by the SiLU of the other. The composed
// form is the specification and runs on every device and dtype; float32 and bfloat16 on the CPU,
// and CUDA, have fused ones. Pure functions.
#pragma once

#include <ATen/core/Tensor.h>

namespace kino::engine {

// x: [..., 2 * D] -> [..., D] in x's dtype: first half * SiLU(second half), or, gate_first, second
// half * SiLU(first half). The SiLU is rounded to x's dtype. Source: diffusers 0.42.1
// models/activations.py SwiGLU (gate second).
at::Tensor SwiGlu(const at::Tensor& x, bool gate_first);
at::Tensor SwiGluComposed(const at::Tensor& x, bool gate_first);

}  // namespace kino::engine
