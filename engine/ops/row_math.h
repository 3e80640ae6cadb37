// What the row loops of cpu_rows.cc are made of: numbers of a row as float32, whatever they are
// held in. Only for that file: always_inline functions join the clones compiled for each processor.
#pragma once

#include <cstdint>

namespace kino::engine::cpu {

#define KINO_INLINE inline __attribute__((always_inline))

// bfloat16, as its bits.
struct BFloat16 {
  uint16_t bits;
};

// __builtin_bit_cast, since std::bit_cast is a function and would not be inlined into the clones.
KINO_INLINE float ToFloat(float x) { return x; }
KINO_INLINE float ToFloat(BFloat16 x) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(x.bits) << 16);
}

// To the nearest bfloat16, ties to even, in the upper half.
KINO_INLINE uint32_t RoundedBits(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  return bits + 0x7fffu + ((bits >> 16) & 1u);
}
KINO_INLINE void Store(float& to, float x) { to = x; }
KINO_INLINE void Store(BFloat16& to, float x) {
  to.bits = static_cast<uint16_t>(RoundedBits(x) >> 16);
}

// To T's precision and back: a rounding point of the composed form.
template <typename T>
KINO_INLINE float Round(float x);
template <>
KINO_INLINE float Round<float>(float x) {
  return x;
}
template <>
KINO_INLINE float Round<BFloat16>(float x) {
  return __builtin_bit_cast(float, RoundedBits(x) & 0xffff0000u);
}

// e^x to about 1e-7 of its value: 2^k e^r with |r| <= ln 2 / 2, e^r by Taylor to the seventh power.
// Its sums must not be reordered.
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

}  // namespace kino::engine::cpu
