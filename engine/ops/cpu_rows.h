// Loops over rows of float32 on the CPU, compiled for several instruction sets and chosen at start
// by the machine. Pointers do not alias unless said; `n` is the row's length.
#pragma once

#include <cstdint>

namespace kino::engine::cpu {

// out = x * rsqrt(mean(x^2) + eps) * (1 + scale) + shift
void RmsModulateRow(const float* x, const float* shift, const float* scale, float* out, int64_t n,
                    float eps);
// out = (x - mean) * rsqrt(var + eps) * (1 + scale) + shift
void LayerModulateRow(const float* x, const float* shift, const float* scale, float* out, int64_t n,
                      float eps);
// x += y * gate
void AddGatedRow(float* x, const float* y, const float* gate, int64_t n);
// x = rotate(rms_norm(x) * weight): interleaved pairs (2i, 2i+1) turned by cos[i], sin[i]; n even.
// In place.
void RmsRotaryRow(float* x, const float* weight, const float* cos, const float* sin, int64_t n,
                  float eps);

}  // namespace kino::engine::cpu
