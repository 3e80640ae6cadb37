// Loops over rows of float32 or bfloat16 on the CPU, compiled for several instruction sets and
// chosen at start by the machine. Sums and products are float32; a bfloat16 row is rounded where
// its operator's composed form rounds. `n` is the row's length. Pointers do not alias unless said.
// Pure functions.
#pragma once

#include <cstdint>

#include "engine/ops/row_math.h"

namespace kino::engine::cpu {

enum class RowNorm { kRms, kLayer };

// out = norm(x) * (1 + scale) + shift; no shift: nullptr. rounds_once: only `out` is rounded, not
// the norm, the factor and the product.
void NormModulateRow(const float* x, RowNorm norm, bool rounds_once, const float* shift,
                     const float* scale, float* out, int64_t n, float eps);
void NormModulateRow(const BFloat16* x, RowNorm norm, bool rounds_once, const BFloat16* shift,
                     const BFloat16* scale, BFloat16* out, int64_t n, float eps);
// The same with norm(x) * weight + bias in place of norm(x), rounded behind each step.
void AffineModulateRow(const float* x, RowNorm norm, const float* weight, const float* bias,
                       const float* shift, const float* scale, float* out, int64_t n, float eps);
void AffineModulateRow(const BFloat16* x, RowNorm norm, const BFloat16* weight,
                       const BFloat16* bias, const BFloat16* shift, const BFloat16* scale,
                       BFloat16* out, int64_t n, float eps);

// x += y * gate
void AddGatedRow(float* x, const float* y, const float* gate, int64_t n);
void AddGatedRow(BFloat16* x, const BFloat16* y, const BFloat16* gate, int64_t n);

// x += y * rsqrt(mean(y^2) + eps) * gate
void AddNormGatedRow(float* x, const float* y, const float* gate, int64_t n, float eps);
void AddNormGatedRow(BFloat16* x, const BFloat16* y, const BFloat16* gate, int64_t n, float eps);

// out = rotate(x * rsqrt(mean(x^2) + eps) * weight): interleaved pairs (2i, 2i+1) turned by cos[i],
// sin[i]; n even. cos nullptr: not turned. bias not nullptr: a layer norm in place of the RMS norm.
// out may be x.
void NormRotaryRow(const float* x, const float* weight, const float* bias, const float* cos,
                   const float* sin, float* out, int64_t n, float eps);
void NormRotaryRow(const BFloat16* x, const BFloat16* weight, const BFloat16* bias,
                   const float* cos, const float* sin, BFloat16* out, int64_t n, float eps);

// Turns in place, for each stretch of 2 * pairs numbers, those of its first half together with
// those of its second; stretch s by the angles from s % axes * pairs on. The bits of torch's
// operators.
void HalfRotaryRow(float* x, const float* cos, const float* sin, int64_t stretches, int64_t axes,
                   int64_t pairs);
void HalfRotaryRow(BFloat16* x, const float* cos, const float* sin, int64_t stretches, int64_t axes,
                   int64_t pairs);

float SumSquares(const float* x, int64_t n);
float SumSquares(const BFloat16* x, int64_t n);

// sums[i] += x[i], squares[i] += x[i]^2
void AddMoments(const float* x, float* sums, float* squares, int64_t n);
void AddMoments(const BFloat16* x, float* sums, float* squares, int64_t n);

// out = SiLU(x * norm * gain + shift); gain and shift may both be nullptr. Rounded behind each
// step. gain and shift hold numbers of the row's precision.
void NormSiluRow(const float* x, float norm, const float* gain, const float* shift, float* out,
                 int64_t n);
void NormSiluRow(const BFloat16* x, float norm, const float* gain, const float* shift,
                 BFloat16* out, int64_t n);

// out = SiLU(x * gain + shift), rounded behind the sum and the SiLU. out may be x.
void AffineSiluRow(const float* x, const float* gain, const float* shift, float* out, int64_t n);
void AffineSiluRow(const BFloat16* x, const float* gain, const float* shift, BFloat16* out,
                   int64_t n);

// out = SiLU((x * gain + offset) * scale + shift), rounded behind each step but the first product.
void AffineModulateSiluRow(const float* x, const float* gain, const float* offset,
                           const float* scale, const float* shift, float* out, int64_t n);
void AffineModulateSiluRow(const BFloat16* x, const float* gain, const float* offset,
                           const BFloat16* scale, const BFloat16* shift, BFloat16* out, int64_t n);

// out = x * SiLU(gate), rounded behind each step. out may be x.
void MulSiluRow(const float* x, const float* gate, float* out, int64_t n);
void MulSiluRow(const BFloat16* x, const BFloat16* gate, BFloat16* out, int64_t n);

// out = 255 times x / 2 + 1/2 within 0..1, to the nearest, ties to even; NaN is 0. Rounded to T
// behind each step but the last.
void PixelsAsBytes(const float* x, uint8_t* out, int64_t n);
void PixelsAsBytes(const BFloat16* x, uint8_t* out, int64_t n);

}  // namespace kino::engine::cpu
