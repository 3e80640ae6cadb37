// Adaptive norms and gates: rows scaled, shifted and gated by parameters that differ by stretches
// of tokens.
//
// Diffusion transformers scale, shift and gate by the timestep, and some by the prompt. Where
// timesteps differ by token (a conditioned first frame), they do so in stretches, so a [B, L, D]
// table of parameters is never made. The composed forms are the specification and run on every
// device and dtype; float32 and bfloat16 on the CPU, and CUDA, have fused ones. Sources: diffusers
// 0.42.1 models/normalization.py, transformer_ltx.py, transformer_mochi.py,
// cogvideox_transformer_3d.py.
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
  kRms,    // x / sqrt(mean(x^2) + eps)
  kLayer,  // (x - mean) / sqrt(var + eps)
};

// Where results are rounded to x's dtype.
enum class Rounding {
  kEachStep,  // the norm, the product and the sum (LTX-Video)
  kOnce,      // behind all of them, which are float32 (Mochi)
};

struct NormStyle {
  NormKind kind = NormKind::kRms;
  double eps = 1e-6;
  Rounding rounding = Rounding::kEachStep;
};

// Of a norm that has parameters of its own, [D] each in x's dtype; both undefined: it has none.
struct NormAffine {
  at::Tensor weight, bias;
};

// A table of parameters is [rows, D], the same for each row of the batch, or [B, rows, D]; in x's
// dtype.

// Norm(x) * (1 + scale) + shift.  x: [B, L, D]; shift (undefined: none) and scale: tables of one
// shape -> [B, L, D] in x's dtype. affine: Norm(x) * weight + bias in place of Norm(x); REQUIRES
// then a shift, and that each step rounds.
at::Tensor NormModulate(const at::Tensor& x, const NormStyle& style, const at::Tensor& shift,
                        const at::Tensor& scale, const TokenSpans& spans,
                        const NormAffine& affine = {});
at::Tensor NormModulateComposed(const at::Tensor& x, const NormStyle& style,
                                const at::Tensor& shift, const at::Tensor& scale,
                                const TokenSpans& spans, const NormAffine& affine = {});

// x += y * gate, in place; the product is rounded.  x, y: [B, L, D]; gate: a table. y is left
// undefined.
void AddGated(at::Tensor& x, at::Tensor& y, const at::Tensor& gate, const TokenSpans& spans);
void AddGatedComposed(at::Tensor& x, at::Tensor& y, const at::Tensor& gate,
                      const TokenSpans& spans);

// x += RmsNorm(y) * gate, in place; the product is float32 and rounded once.  x, y: [B, L, D];
// gate: a table.
void AddNormGated(at::Tensor& x, const at::Tensor& y, double eps, const at::Tensor& gate,
                  const TokenSpans& spans);
void AddNormGatedComposed(at::Tensor& x, const at::Tensor& y, double eps, const at::Tensor& gate,
                          const TokenSpans& spans);

}  // namespace kino::engine
