// The layout of GGUF's blocks and the arithmetic of their elements, for the CPU and CUDA alike: an
// element is scale * quant - minimum, each step rounded to float32 and none fused. Source: the
// block structs of ggml's ggml-common.h, and gguf 0.19's quants.py, whose float32 results these
// are. Values only.
#pragma once

#include <cstdint>

#include "engine/core/ggml_type.h"

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define KINO_HOST_DEVICE __host__ __device__
#else
#include <c10/util/Half.h>
#define KINO_HOST_DEVICE
#endif

namespace kino::engine {

// What a run of a block's elements has in common.
struct GgufScale {
  float scale;
  float minimum;
};

KINO_HOST_DEVICE inline float GgufHalf(const uint8_t* bytes) {
  const auto bits = static_cast<uint16_t>(bytes[0] | bytes[1] << 8);
#ifdef __CUDACC__
  return __half2float(__ushort_as_half(bits));
#else
  return c10::detail::fp16_ieee_to_fp32_value(bits);
#endif
}

KINO_HOST_DEVICE inline float GgufProduct(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

KINO_HOST_DEVICE inline float GgufElement(GgufScale scale, int quant) {
  const float product = GgufProduct(scale.scale, static_cast<float>(quant));
#ifdef __CUDA_ARCH__
  return __fsub_rn(product, scale.minimum);
#else
  return product - scale.minimum;
#endif
}

KINO_HOST_DEVICE inline int GgufLowNibbleFirst(const uint8_t* quants, int element, int half) {
  return element < half ? quants[element] & 15 : quants[element - half] >> 4;
}

// The fifth bit of an element of Q5_0 and Q5_1.
KINO_HOST_DEVICE inline int GgufFifthBit(const uint8_t* bits, int element) {
  return (bits[element / 8] >> element % 8 & 1) << 4;
}

// The two low bits of an element of Q2_K and Q3_K: 128 elements share 32 bytes.
KINO_HOST_DEVICE inline int GgufTwoBits(const uint8_t* quants, int element) {
  return quants[element / 128 * 32 + element % 32] >> element % 128 / 32 * 2 & 3;
}

// The four low bits of an element of Q4_K and Q5_K: 64 elements share 32 bytes.
KINO_HOST_DEVICE inline int GgufFourBits(const uint8_t* quants, int element) {
  return quants[element / 64 * 32 + element % 32] >> element % 64 / 32 * 4 & 15;
}

// The 6-bit scale and minimum of a run of Q4_K and Q5_K, times those of the block.
KINO_HOST_DEVICE inline GgufScale GgufSixBits(const uint8_t* block, int run) {
  const uint8_t* packed = block + 4;
  const int at = run % 4;
  const int scale = run < 4 ? packed[at] & 63 : (packed[8 + at] & 15) | (packed[at] >> 2 & 48);
  const int minimum =
      run < 4 ? packed[4 + at] & 63 : packed[8 + at] >> 4 | (packed[4 + at] >> 2 & 48);
  return {GgufProduct(GgufHalf(block), static_cast<float>(scale)),
          GgufProduct(GgufHalf(block + 2), static_cast<float>(minimum))};
}

// IQ4_NL's and IQ4_XS's values.
KINO_HOST_DEVICE inline int GgufNonlinear(int index) {
  constexpr int8_t kValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                  1,    13,   25,  38,  53,  69,  89,  113};
  return kValues[index];
}

// kRun elements of a block share a scale. Scale(block, run), Quant(block, element of the block).
template <GgmlType>
struct GgufBlock;

template <>
struct GgufBlock<GgmlType::kQ4_0> {
  static constexpr int kElements = 32, kRun = 32, kBytes = 18;
  KINO_HOST_DEVICE static GgufScale Scale(const uint8_t* block, int) {
    return {GgufHalf(block), 0};
  }
  KINO_HOST_DEVICE static int Quant(const uint8_t* block, int element) {
    return GgufLowNibbleFirst(block + 2, element, 16) - 8;
  }
};

template <>
struct GgufBlock<GgmlType::kQ4_1> {
  static constexpr int kElements = 32, kRun = 32, kBytes = 20;
  KINO_HOST_DEVICE static GgufScale Scale(const uint8_t* block, int) {
    return {GgufHalf(block), -GgufHalf(block + 2)};
  }
  KINO_HOST_DEVICE static int Quant(const uint8_t* block, int element) {
    return GgufLowNibbleFirst(block + 4, element, 16);
  }
};

template <>
struct GgufBlock<GgmlType::kQ5_0> {
  static constexpr int kElements = 32, kRun = 32, kBytes = 22;
  KINO_HOST_DEVICE static GgufScale Scale(const uint8_t* block, int) {
    return {GgufHalf(block), 0};
  }
  KINO_HOST_DEVICE static int Quant(const uint8_t* block, int element) {
    return (GgufLowNibbleFirst(block + 6, element, 16) | GgufFifthBit(block + 2, element)) - 16;
  }
};

template <>
struct GgufBlock<GgmlType::kQ5_1> {
  static constexpr int kElements = 32, kRun = 32, kBytes = 24;
  KINO_HOST_DEVICE static GgufScale Scale(const uint8_t* block, int) {
    return {GgufHalf(block), -GgufHalf(block + 2)};
  }
  KINO_HOST_DEVICE static int Quant(const uint8_t* block, int element) {
    return GgufLowNibbleFirst(block + 8, element, 16) | GgufFifthBit(block + 4, element);
  }
};

template <>
struct GgufBlock<GgmlType::kQ8_0> {
  static constexpr int kElements = 32, kRun = 32, kBytes = 34;
  KINO_HOST_DEVICE static GgufScale Scale(const uint8_t* block, int) {
    return {GgufHalf(block), 0};
  }
  KINO_HOST_DEVICE static int Quant(const uint8_t* block, int element) {
    return static_cast<int8_t>(block[2 + element]);
  }
};

// scales[16] (4-bit scale, 4-bit minimum), quants[64], scale, minimum.
template <>
struct GgufBlock<GgmlType::kQ2_K> {
  static constexpr int kElements = 256, kRun = 16, kBytes = 84;
  KINO_HOST_DEVICE static GgufScale Scale(const uint8_t* block, int run) {
    return {GgufProduct(GgufHalf(block + 80), static_cast<float>(block[run] & 15)),
            GgufProduct(GgufHalf(block + 82), static_cast<float>(block[run] >> 4))};
  }
  KINO_HOST_DEVICE static int Quant(const uint8_t* block, int element) {
    return GgufTwoBits(block + 16, element);
  }
};

// high bits[32], quants[64], scales[12], scale. A high bit that is set adds nothing.
template <>
struct GgufBlock<GgmlType::kQ3_K> {
  static constexpr int kElements = 256, kRun = 16, kBytes = 110;
  KINO_HOST_DEVICE static GgufScale Scale(const uint8_t* block, int run) {
    const uint8_t* scales = block + 96;
    const int low = run < 8 ? scales[run] & 15 : scales[run - 8] >> 4;
    const int high = scales[8 + run % 4] >> run / 4 * 2 & 3;
    return {GgufProduct(GgufHalf(block + 108), static_cast<float>((low | high << 4) - 32)), 0};
  }
  KINO_HOST_DEVICE static int Quant(const uint8_t* block, int element) {
    const int high = (block[element % 32] >> element / 32 & 1) ^ 1;
    return GgufTwoBits(block + 32, element) - (high << 2);
  }
};

// scale, minimum, scales[12], quants[128].
template <>
struct GgufBlock<GgmlType::kQ4_K> {
  static constexpr int kElements = 256, kRun = 32, kBytes = 144;
  KINO_HOST_DEVICE static GgufScale Scale(const uint8_t* block, int run) {
    return GgufSixBits(block, run);
  }
  KINO_HOST_DEVICE static int Quant(const uint8_t* block, int element) {
    return GgufFourBits(block + 16, element);
  }
};

// scale, minimum, scales[12], high bits[32], quants[128].
template <>
struct GgufBlock<GgmlType::kQ5_K> {
  static constexpr int kElements = 256, kRun = 32, kBytes = 176;
  KINO_HOST_DEVICE static GgufScale Scale(const uint8_t* block, int run) {
    return GgufSixBits(block, run);
  }
  KINO_HOST_DEVICE static int Quant(const uint8_t* block, int element) {
    const int high = block[16 + element % 32] >> element / 32 & 1;
    return GgufFourBits(block + 48, element) | high << 4;
  }
};

// low bits[128], high bits[64], scales[16], scale.
template <>
struct GgufBlock<GgmlType::kQ6_K> {
  static constexpr int kElements = 256, kRun = 16, kBytes = 210;
  KINO_HOST_DEVICE static GgufScale Scale(const uint8_t* block, int run) {
    return {GgufProduct(GgufHalf(block + 208),
                        static_cast<float>(static_cast<int8_t>(block[192 + run]))),
            0};
  }
  KINO_HOST_DEVICE static int Quant(const uint8_t* block, int element) {
    const int low = block[element / 128 * 64 + element % 64] >> element % 128 / 64 * 4 & 15;
    return (low | GgufTwoBits(block + 128, element) << 4) - 32;
  }
};

template <>
struct GgufBlock<GgmlType::kIQ4_NL> {
  static constexpr int kElements = 32, kRun = 32, kBytes = 18;
  KINO_HOST_DEVICE static GgufScale Scale(const uint8_t* block, int) {
    return {GgufHalf(block), 0};
  }
  KINO_HOST_DEVICE static int Quant(const uint8_t* block, int element) {
    return GgufNonlinear(GgufLowNibbleFirst(block + 2, element, 16));
  }
};

// scale, high bits of the scales (2 bytes), low bits of them[4], quants[128].
template <>
struct GgufBlock<GgmlType::kIQ4_XS> {
  static constexpr int kElements = 256, kRun = 32, kBytes = 136;
  KINO_HOST_DEVICE static GgufScale Scale(const uint8_t* block, int run) {
    const int low = block[4 + run / 2] >> run % 2 * 4 & 15;
    const int high = (block[2] | block[3] << 8) >> 2 * run & 3;
    return {GgufProduct(GgufHalf(block), static_cast<float>((low | high << 4) - 32)), 0};
  }
  KINO_HOST_DEVICE static int Quant(const uint8_t* block, int element) {
    return GgufNonlinear(GgufLowNibbleFirst(block + 8 + element / 32 * 16, element % 32, 16));
  }
};

}  // namespace kino::engine
