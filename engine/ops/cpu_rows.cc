#include "engine/ops/cpu_rows.h"

#include <cmath>

// Sums in several lanes may be reordered: the compiler vectorises them only when told that it may.
// The result differs from torch's own (also vectorised) sum in the last bits.
#define KINO_SUM_ROW                                          \
  __attribute__((target_clones("avx512f", "avx2", "default"), \
                 optimize("O3", "associative-math", "no-signed-zeros", "no-trapping-math")))
// Where SiLU is computed nothing may be reordered.
#define KINO_SILU_ROW                                                \
  __attribute__((target_clones("arch=x86-64-v4", "avx2", "default"), \
                 optimize("O3", "no-trapping-math", "no-math-errno")))
#define KINO_SILU_SUM                                                \
  __attribute__((target_clones("arch=x86-64-v4", "avx2", "default"), \
                 optimize("O3", "associative-math", "no-signed-zeros", "no-trapping-math")))
// Where a sum must not be fused with the product before it: to round to a whole number, or as torch
// does.
#define KINO_UNFUSED_ROW                                             \
  __attribute__((target_clones("arch=x86-64-v4", "avx2", "default"), \
                 optimize("O3", "no-trapping-math", "fp-contract=off")))

namespace kino::engine::cpu {
namespace {

template <typename T>
KINO_INLINE float InverseRms(const T* __restrict x, int64_t n, float eps) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += ToFloat(x[i]) * ToFloat(x[i]);
  return 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
}

// What a norm takes from each number and multiplies it with.
struct Moment {
  float mean, norm;
};
template <typename T>
KINO_INLINE Moment MomentOf(const T* __restrict x, RowNorm kind, int64_t n, float eps) {
  if (kind == RowNorm::kRms) return {0, InverseRms(x, n, eps)};
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += ToFloat(x[i]);
  const float mean = sum / static_cast<float>(n);
  float squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += (ToFloat(x[i]) - mean) * (ToFloat(x[i]) - mean);
  return {mean, 1.0f / std::sqrt(squares / static_cast<float>(n) + eps)};
}

template <typename T>
KINO_INLINE void AffineModulate(const T* __restrict x, RowNorm kind, const T* __restrict weight,
                                const T* __restrict bias, const T* __restrict shift,
                                const T* __restrict scale, T* __restrict out, int64_t n,
                                float eps) {
  const Moment of = MomentOf(x, kind, n, eps);
  for (int64_t i = 0; i < n; ++i) {
    const float normed =
        Round<T>((ToFloat(x[i]) - of.mean) * of.norm * ToFloat(weight[i]) + ToFloat(bias[i]));
    Store(out[i], Round<T>(normed * Round<T>(1.0f + ToFloat(scale[i]))) + ToFloat(shift[i]));
  }
}

template <typename T>
KINO_INLINE void NormModulate(const T* __restrict x, RowNorm kind, bool rounds_once,
                              const T* __restrict shift, const T* __restrict scale,
                              T* __restrict out, int64_t n, float eps) {
  const auto [mean, norm] = MomentOf(x, kind, n, eps);
  if (shift == nullptr && rounds_once) {
    for (int64_t i = 0; i < n; ++i)
      Store(out[i], (ToFloat(x[i]) - mean) * norm * (1.0f + ToFloat(scale[i])));
  } else if (shift == nullptr) {
    for (int64_t i = 0; i < n; ++i)
      Store(out[i], Round<T>((ToFloat(x[i]) - mean) * norm) * Round<T>(1.0f + ToFloat(scale[i])));
  } else if (rounds_once) {
    for (int64_t i = 0; i < n; ++i) {
      Store(out[i], (ToFloat(x[i]) - mean) * norm * (1.0f + ToFloat(scale[i])) + ToFloat(shift[i]));
    }
  } else if (kind == RowNorm::kLayer) {
    for (int64_t i = 0; i < n; ++i) {
      Store(out[i],
            Round<T>(Round<T>((ToFloat(x[i]) - mean) * norm) * Round<T>(1.0f + ToFloat(scale[i]))) +
                ToFloat(shift[i]));
    }
  } else {
    for (int64_t i = 0; i < n; ++i) {
      Store(out[i], Round<T>(Round<T>(ToFloat(x[i]) * norm) * Round<T>(1.0f + ToFloat(scale[i]))) +
                        ToFloat(shift[i]));
    }
  }
}

template <typename T>
KINO_INLINE void AddGated(T* __restrict x, const T* __restrict y, const T* __restrict gate,
                          int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    Store(x[i], ToFloat(x[i]) + Round<T>(ToFloat(y[i]) * ToFloat(gate[i])));
}

template <typename T>
KINO_INLINE void AddNormGated(T* __restrict x, const T* __restrict y, const T* __restrict gate,
                              int64_t n, float eps) {
  const float norm = InverseRms(y, n, eps);
  for (int64_t i = 0; i < n; ++i)
    Store(x[i], ToFloat(x[i]) + Round<T>(ToFloat(y[i]) * norm * ToFloat(gate[i])));
}

// bias nullptr: none.
template <typename T>
KINO_INLINE float NormedAt(const T* x, const T* __restrict weight, const T* __restrict bias,
                           Moment of, int64_t i) {
  const float normed = (ToFloat(x[i]) - of.mean) * of.norm * ToFloat(weight[i]);
  return bias == nullptr ? normed : normed + ToFloat(bias[i]);
}

template <typename T>
KINO_INLINE void NormRotary(const T* x, const T* __restrict weight, const T* __restrict bias,
                            const float* __restrict cos, const float* __restrict sin, T* out,
                            int64_t n, float eps) {
  const Moment of = MomentOf(x, bias == nullptr ? RowNorm::kRms : RowNorm::kLayer, n, eps);
  if (cos == nullptr) {
    for (int64_t i = 0; i < n; ++i) Store(out[i], NormedAt(x, weight, bias, of, i));
    return;
  }
  for (int64_t i = 0; i < n / 2; ++i) {
    const float a = Round<T>(NormedAt(x, weight, bias, of, 2 * i));
    const float b = Round<T>(NormedAt(x, weight, bias, of, 2 * i + 1));
    Store(out[2 * i], a * cos[i] - b * sin[i]);
    Store(out[2 * i + 1], b * cos[i] + a * sin[i]);
  }
}

template <typename T>
KINO_INLINE void HalfRotary(T* x, const float* __restrict cos, const float* __restrict sin,
                            int64_t stretches, int64_t axes, int64_t pairs) {
  for (int64_t stretch = 0; stretch < stretches; ++stretch) {
    T* __restrict first = x + stretch * 2 * pairs;
    T* __restrict second = first + pairs;
    const int64_t at = stretch % axes * pairs;
    for (int64_t i = 0; i < pairs; ++i) {
      const float a = ToFloat(first[i]), b = ToFloat(second[i]);
      Store(first[i], a * cos[at + i] - b * sin[at + i]);
      Store(second[i], b * cos[at + i] + a * sin[at + i]);
    }
  }
}

template <typename T>
KINO_INLINE float Squares(const T* __restrict x, int64_t n) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += ToFloat(x[i]) * ToFloat(x[i]);
  return sum;
}

template <typename T>
KINO_INLINE void Moments(const T* __restrict x, float* __restrict sums, float* __restrict squares,
                         int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    sums[i] += ToFloat(x[i]);
    squares[i] += ToFloat(x[i]) * ToFloat(x[i]);
  }
}

template <typename T>
KINO_INLINE void NormSilu(const T* __restrict x, float norm, const float* __restrict gain,
                          const float* __restrict shift, T* __restrict out, int64_t n) {
  if (gain == nullptr) {
    for (int64_t i = 0; i < n; ++i) Store(out[i], Silu(Round<T>(ToFloat(x[i]) * norm)));
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    const float scaled = Round<T>(Round<T>(ToFloat(x[i]) * norm) * gain[i]);
    Store(out[i], Silu(Round<T>(scaled + shift[i])));
  }
}

template <typename T>
KINO_INLINE void AffineSilu(const T* x, const float* __restrict gain, const float* __restrict shift,
                            T* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) Store(out[i], Silu(Round<T>(ToFloat(x[i]) * gain[i] + shift[i])));
}

template <typename T>
KINO_INLINE void AffineModulateSilu(const T* __restrict x, const float* __restrict gain,
                                    const float* __restrict offset, const T* __restrict scale,
                                    const T* __restrict shift, T* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float normed = Round<T>(ToFloat(x[i]) * gain[i] + offset[i]);
    Store(out[i], Silu(Round<T>(Round<T>(normed * ToFloat(scale[i])) + ToFloat(shift[i]))));
  }
}

template <typename T>
KINO_INLINE void MulSilu(const T* x, const T* gate, T* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) Store(out[i], ToFloat(x[i]) * Round<T>(Silu(ToFloat(gate[i]))));
}

template <typename T>
KINO_INLINE void AsBytes(const T* __restrict x, uint8_t* __restrict out, int64_t n) {
  constexpr float kRoundingBias =
      8388608.0f;  // 2^23: adding it leaves a whole number in the low bits
  for (int64_t i = 0; i < n; ++i) {
    float unit = Round<T>(Round<T>(ToFloat(x[i]) * 0.5f) + 0.5f);
    unit = unit > 0.0f ? unit : 0.0f;
    unit = unit < 1.0f ? unit : 1.0f;
    out[i] = static_cast<uint8_t>(__builtin_bit_cast(uint32_t, unit * 255.0f + kRoundingBias));
  }
}

}  // namespace

// Each function for both kinds of numbers.
#define KINO_BOTH(TYPE)                                                                            \
  KINO_SUM_ROW void NormModulateRow(const TYPE* x, RowNorm norm, bool rounds_once,                 \
                                    const TYPE* shift, const TYPE* scale, TYPE* out, int64_t n,    \
                                    float eps) {                                                   \
    NormModulate(x, norm, rounds_once, shift, scale, out, n, eps);                                 \
  }                                                                                                \
  KINO_SUM_ROW void AddGatedRow(TYPE* x, const TYPE* y, const TYPE* gate, int64_t n) {             \
    AddGated(x, y, gate, n);                                                                       \
  }                                                                                                \
  KINO_SUM_ROW void AddNormGatedRow(TYPE* x, const TYPE* y, const TYPE* gate, int64_t n,           \
                                    float eps) {                                                   \
    AddNormGated(x, y, gate, n, eps);                                                              \
  }                                                                                                \
  KINO_SUM_ROW void AffineModulateRow(const TYPE* x, RowNorm norm, const TYPE* weight,             \
                                      const TYPE* bias, const TYPE* shift, const TYPE* scale,      \
                                      TYPE* out, int64_t n, float eps) {                           \
    AffineModulate(x, norm, weight, bias, shift, scale, out, n, eps);                              \
  }                                                                                                \
  KINO_SUM_ROW void NormRotaryRow(const TYPE* x, const TYPE* weight, const TYPE* bias,             \
                                  const float* cos, const float* sin, TYPE* out, int64_t n,        \
                                  float eps) {                                                     \
    NormRotary(x, weight, bias, cos, sin, out, n, eps);                                            \
  }                                                                                                \
  KINO_SILU_SUM float SumSquares(const TYPE* x, int64_t n) { return Squares(x, n); }               \
  KINO_SILU_SUM void AddMoments(const TYPE* x, float* sums, float* squares, int64_t n) {           \
    Moments(x, sums, squares, n);                                                                  \
  }                                                                                                \
  KINO_SILU_ROW void NormSiluRow(const TYPE* x, float norm, const float* gain, const float* shift, \
                                 TYPE* out, int64_t n) {                                           \
    NormSilu(x, norm, gain, shift, out, n);                                                        \
  }                                                                                                \
  KINO_SILU_ROW void AffineSiluRow(const TYPE* x, const float* gain, const float* shift,           \
                                   TYPE* out, int64_t n) {                                         \
    AffineSilu(x, gain, shift, out, n);                                                            \
  }                                                                                                \
  KINO_SILU_ROW void AffineModulateSiluRow(const TYPE* x, const float* gain, const float* offset,  \
                                           const TYPE* scale, const TYPE* shift, TYPE* out,        \
                                           int64_t n) {                                            \
    AffineModulateSilu(x, gain, offset, scale, shift, out, n);                                     \
  }                                                                                                \
  KINO_SILU_ROW void MulSiluRow(const TYPE* x, const TYPE* gate, TYPE* out, int64_t n) {           \
    MulSilu(x, gate, out, n);                                                                      \
  }                                                                                                \
  KINO_UNFUSED_ROW void HalfRotaryRow(TYPE* x, const float* cos, const float* sin,                 \
                                      int64_t stretches, int64_t axes, int64_t pairs) {            \
    HalfRotary(x, cos, sin, stretches, axes, pairs);                                               \
  }                                                                                                \
  KINO_UNFUSED_ROW void PixelsAsBytes(const TYPE* x, uint8_t* out, int64_t n) {                    \
    AsBytes(x, out, n);                                                                            \
  }

KINO_BOTH(float)
KINO_BOTH(BFloat16)

}  // namespace kino::engine::cpu
