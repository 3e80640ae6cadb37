#include "engine/ops/cpu_rows.h"

#include <cmath>

// Sums in several lanes may be reordered: the compiler vectorises them only when told that it may.
// The result differs from torch's own (also vectorised) sum in the last bits.
#define KINO_ROW                                              \
  __attribute__((target_clones("avx512f", "avx2", "default"), \
                 optimize("O3", "associative-math", "no-signed-zeros", "no-trapping-math")))

namespace kino::engine::cpu {

KINO_ROW void RmsModulateRow(const float* __restrict x, const float* __restrict shift,
                             const float* __restrict scale, float* __restrict out, int64_t n,
                             float eps) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  const float norm = 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * norm * (1.0f + scale[i]) + shift[i];
}

KINO_ROW void LayerModulateRow(const float* __restrict x, const float* __restrict shift,
                               const float* __restrict scale, float* __restrict out, int64_t n,
                               float eps) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i];
  const float mean = sum / static_cast<float>(n);
  float squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += (x[i] - mean) * (x[i] - mean);
  const float norm = 1.0f / std::sqrt(squares / static_cast<float>(n) + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = (x[i] - mean) * norm * (1.0f + scale[i]) + shift[i];
}

KINO_ROW void AddGatedRow(float* __restrict x, const float* __restrict y,
                          const float* __restrict gate, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] += y[i] * gate[i];
}

KINO_ROW void RmsRotaryRow(float* __restrict x, const float* __restrict weight,
                           const float* __restrict cos, const float* __restrict sin, int64_t n,
                           float eps) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  const float norm = 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
  for (int64_t i = 0; i < n / 2; ++i) {
    const float a = x[2 * i] * norm * weight[2 * i];
    const float b = x[2 * i + 1] * norm * weight[2 * i + 1];
    x[2 * i] = a * cos[i] - b * sin[i];
    x[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

}  // namespace kino::engine::cpu
