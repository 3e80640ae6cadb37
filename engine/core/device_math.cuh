// What our CUDA kernels share: numbers of each element type as float32, sums over threads, a call
// by element type. Only for .cu files.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "engine/core/cuda_element.h"
#include "engine/core/cuda_launch.h"

namespace kino::engine::cuda {

inline constexpr int kThreads = 256;

inline __device__ float ToFloat(float value) { return value; }
inline __device__ float ToFloat(__half value) { return __half2float(value); }
inline __device__ float ToFloat(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ T FromFloat(float value);
template <>
inline __device__ float FromFloat<float>(float value) {
  return value;
}
template <>
inline __device__ __half FromFloat<__half>(float value) {
  return __float2half_rn(value);
}
template <>
inline __device__ __nv_bfloat16 FromFloat<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// To T's precision and back: a rounding point of the composed form.
template <typename T>
inline __device__ float Round(float value) {
  return ToFloat(FromFloat<T>(value));
}

inline __device__ float Silu(float value) { return value / (1.0f + expf(-value)); }

// The sum of `value` over the warp, in every thread.
inline __device__ float WarpSum(float value) {
  for (int offset = 16; offset > 0; offset /= 2)
    value += __shfl_xor_sync(0xffffffff, value, offset);
  return value;
}

// The sum of `value` over the block, in every thread.
inline __device__ float BlockSum(float value) {
  __shared__ float partial[kThreads / 32];
  value = WarpSum(value);
  __syncthreads();  // an earlier sum may still be read
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < kThreads / 32; ++i) sum += partial[i];
  return sum;
}

// Calls launch(T{}) with the element's type.
template <typename Launch>
cudaError_t Dispatch(Element element, const Launch& launch) {
  switch (element) {
    case Element::kFloat:
      launch(float{});
      break;
    case Element::kHalf:
      launch(__half{});
      break;
    case Element::kBFloat16:
      launch(__nv_bfloat16{});
      break;
  }
  return cudaGetLastError();
}

}  // namespace kino::engine::cuda
