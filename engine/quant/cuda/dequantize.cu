#include "engine/quant/cuda/dequantize.h"

#include <cuda_fp8.h>

#include <algorithm>
#include <type_traits>

#include "engine/core/device_math.cuh"

namespace kino::engine::cuda {
namespace {

// Enough for every multiprocessor several times over; threads stride over the rest.
constexpr int64_t kMaxBlocks = 1 << 16;

struct Code16 {
  float values[16];
};

__device__ float ScaleOf(const BlockScales& scales, int64_t block) {
  if (scales.plain != nullptr) return scales.plain[block];
  const float product =
      __fmul_rn(scales.code[scales.codes[block]], scales.nested[block / scales.nested_block]);
  return __fadd_rn(product, *scales.offset);
}

// One thread for each byte, that is two elements; both are of one block, since blocks are even.
template <typename T>
__global__ void Decode4BitKernel(const uint8_t* packed, BlockScales scales, Code16 code,
                                 int64_t block, int64_t elements, T* out) {
  __shared__ float table[16];
  if (threadIdx.x < 16) table[threadIdx.x] = code.values[threadIdx.x];
  __syncthreads();
  const int64_t bytes = (elements + 1) / 2;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < bytes;
       i += stride) {
    const float scale = ScaleOf(scales, 2 * i / block);
    const uint8_t pair = packed[i];
    out[2 * i] = FromFloat<T>(__fmul_rn(table[pair >> 4], scale));
    if (2 * i + 1 < elements) out[2 * i + 1] = FromFloat<T>(__fmul_rn(table[pair & 15], scale));
  }
}

__device__ float ToFloat(int8_t value) { return static_cast<float>(value); }
__device__ float ToFloat(__nv_fp8_e4m3 value) { return static_cast<float>(value); }

template <typename Q, typename T>
__global__ void DecodeScaledRowsKernel(const Q* values, const float* scales, float factor,
                                       int64_t elements, int64_t columns, T* out) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < elements;
       i += stride) {
    const float scaled = __fmul_rn(ToFloat(values[i]), scales[i / columns]);
    out[i] = FromFloat<T>(__fmul_rn(scaled, factor));
  }
}

unsigned BlocksFor(int64_t threads) {
  return static_cast<unsigned>(std::min((threads + kThreads - 1) / kThreads, kMaxBlocks));
}

}  // namespace

cudaError_t Decode4Bit(Element element, const uint8_t* packed, const BlockScales& scales,
                       const float* code, int64_t block, int64_t elements, void* out,
                       cudaStream_t stream) {
  if (elements == 0) return cudaSuccess;
  Code16 table;
  std::copy(code, code + 16, table.values);
  return Dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    KINO_LAUNCH(Decode4BitKernel<T>, BlocksFor((elements + 1) / 2), kThreads, stream)
    (packed, scales, table, block, elements, static_cast<T*>(out));
  });
}

cudaError_t DecodeScaledRows(Element element, bool is_float8, const void* values,
                             const float* scales, float factor, int64_t rows, int64_t columns,
                             void* out, cudaStream_t stream) {
  const int64_t elements = rows * columns;
  if (elements == 0) return cudaSuccess;
  return Dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    const auto decode = [&](const auto* from) {
      const auto kernel = DecodeScaledRowsKernel<std::decay_t<decltype(*from)>, T>;
      KINO_LAUNCH(kernel, BlocksFor(elements), kThreads, stream)
      (from, scales, factor, elements, columns, static_cast<T*>(out));
    };
    if (is_float8) {
      decode(static_cast<const __nv_fp8_e4m3*>(values));
    } else {
      decode(static_cast<const int8_t*>(values));
    }
  });
}

}  // namespace kino::engine::cuda
