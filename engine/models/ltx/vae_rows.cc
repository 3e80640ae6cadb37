#include "engine/models/ltx/vae_rows.h"

// __builtin_bit_cast, since std::bit_cast is a function and would not be inlined into the clones.
#define KINO_CLONES target_clones("arch=x86-64-v4", "avx2", "default")
// Sums in several lanes may be reordered: the compiler vectorises them only when told that it may.
#define KINO_SUM              \
  __attribute__((KINO_CLONES, \
                 optimize("O3", "associative-math", "no-signed-zeros", "no-trapping-math")))
#define KINO_ROW __attribute__((KINO_CLONES, optimize("O3", "no-trapping-math", "no-math-errno")))
#define KINO_INLINE inline __attribute__((always_inline))

namespace kino::engine::cpu {
namespace {

KINO_INLINE float FromBFloat16(uint16_t bits) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16);
}

// To nearest, ties to even.
KINO_INLINE uint32_t RoundedBits(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  return bits + 0x7fffu + ((bits >> 16) & 1u);
}
KINO_INLINE float RoundToBFloat16(float x) {
  return __builtin_bit_cast(float, RoundedBits(x) & 0xffff0000u);
}

// e^x to about 1e-7 of its value: 2^k e^r with |r| <= ln 2 / 2, e^r by Taylor to the seventh power.
KINO_INLINE float Exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  constexpr float kRoundingBias = 12582912.0f;  // 1.5 * 2^23: adding it leaves k in the low bits
  const float biased = x * 1.44269504088896341f + kRoundingBias;
  const float k = biased - kRoundingBias;
  const float r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
  float sum = 1.0f / 5040.0f;
  sum = sum * r + 1.0f / 720.0f;
  sum = sum * r + 1.0f / 120.0f;
  sum = sum * r + 1.0f / 24.0f;
  sum = sum * r + 1.0f / 6.0f;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  return sum *
         __builtin_bit_cast(float, (__builtin_bit_cast(uint32_t, biased) << 23) + 0x3f800000u);
}

KINO_INLINE float Silu(float x) { return x / (1.0f + Exp(-x)); }

}  // namespace

KINO_SUM float SumSquares(const float* __restrict x, int64_t n) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  return sum;
}

KINO_SUM float SumSquaresBFloat16(const uint16_t* __restrict x, int64_t n) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += FromBFloat16(x[i]) * FromBFloat16(x[i]);
  return sum;
}

KINO_ROW void NormSiluRow(const float* __restrict x, float norm, const float* __restrict gain,
                          const float* __restrict shift, float* __restrict out, int64_t n) {
  if (gain == nullptr) {
    for (int64_t i = 0; i < n; ++i) out[i] = Silu(x[i] * norm);
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = Silu(x[i] * norm * gain[i] + shift[i]);
  }
}

KINO_ROW void NormSiluRowBFloat16(const uint16_t* __restrict x, float norm,
                                  const float* __restrict gain, const float* __restrict shift,
                                  uint16_t* __restrict out, int64_t n) {
  if (gain == nullptr) {
    for (int64_t i = 0; i < n; ++i) {
      out[i] = static_cast<uint16_t>(
          RoundedBits(Silu(RoundToBFloat16(FromBFloat16(x[i]) * norm))) >> 16);
    }
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    const float scaled = RoundToBFloat16(RoundToBFloat16(FromBFloat16(x[i]) * norm) * gain[i]);
    out[i] = static_cast<uint16_t>(RoundedBits(Silu(RoundToBFloat16(scaled + shift[i]))) >> 16);
  }
}

}  // namespace kino::engine::cpu
