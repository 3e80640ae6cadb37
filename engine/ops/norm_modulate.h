// Adaptive layer norms and gates whose parameters differ by stretches of tokens.
//
// Diffusion transformers scale, shift and gate by the timestep; where timesteps differ by token (a
// conditioned first frame), they do so in stretches, so a [B, L, D] table of parameters is never
// made. The composed form is the specification and runs on every device and dtype; float32 on the
// CPU has a fused one. Rounding points are diffusers' (models/normalization.py RMSNorm,
// transformer_ltx.py): the norm is rounded to x's dtype, then the product, then the sum.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace kino::engine {

// Tokens [begin, end) of the sequence and the row of a parameter table they use.
struct TokenSpan {
  int64_t begin;
  int64_t end;
  int64_t row;
};
// Spans cover the sequence in order without gaps.
using TokenSpans = std::vector<TokenSpan>;

enum class NormKind {
  kRms,    // x / sqrt(mean(x^2) + eps), no weight
  kLayer,  // (x - mean) / sqrt(var + eps), no weight
};

// Norm(x) * (1 + scale) + shift.  x: [B, L, D]; shift, scale: [rows, D] in x's dtype -> [B, L, D]
// in x's dtype.
at::Tensor NormModulate(const at::Tensor& x, NormKind kind, double eps, const at::Tensor& shift,
                        const at::Tensor& scale, const TokenSpans& spans);
at::Tensor NormModulateComposed(const at::Tensor& x, NormKind kind, double eps,
                                const at::Tensor& shift, const at::Tensor& scale,
                                const TokenSpans& spans);

// x += y * gate, in place.  x, y: [B, L, D]; gate: [rows, D]. y is left undefined.
void AddGated(at::Tensor& x, at::Tensor& y, const at::Tensor& gate, const TokenSpans& spans);

}  // namespace kino::engine
