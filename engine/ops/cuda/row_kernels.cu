#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "engine/ops/cuda/row_kernels.h"

namespace kino::engine::cuda {
namespace {

constexpr int kThreads = 256;

__device__ float ToFloat(float value) { return value; }
__device__ float ToFloat(__half value) { return __half2float(value); }
__device__ float ToFloat(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ T FromFloat(float value);
template <>
__device__ float FromFloat<float>(float value) {
  return value;
}
template <>
__device__ __half FromFloat<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ __nv_bfloat16 FromFloat<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// To T's precision and back: a rounding point of the composed form.
template <typename T>
__device__ float Round(float value) {
  return ToFloat(FromFloat<T>(value));
}

// The sum of `value` over the block, in every thread.
__device__ float BlockSum(float value) {
  __shared__ float partial[kThreads / 32];
  for (int offset = 16; offset > 0; offset /= 2)
    value += __shfl_xor_sync(0xffffffff, value, offset);
  __syncthreads();  // an earlier sum may still be read
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < kThreads / 32; ++i) sum += partial[i];
  return sum;
}

__device__ int64_t TableRow(const Spans& spans, int64_t token) {
  for (int i = 0; i < spans.count - 1; ++i) {
    if (token < spans.end[i]) return spans.row[i];
  }
  return spans.row[spans.count - 1];
}

template <typename T, bool kIsLayer>
__global__ void NormModulateKernel(const T* x, const T* shift, const T* scale, T* out,
                                   int64_t tokens, int64_t width, float eps, Spans spans) {
  const int64_t row = blockIdx.x;
  const int64_t table = TableRow(spans, row % tokens) * width;
  const T* from = x + row * width;
  float mean = 0;
  if (kIsLayer) {
    float sum = 0;
    for (int64_t i = threadIdx.x; i < width; i += kThreads) sum += ToFloat(from[i]);
    mean = BlockSum(sum) / static_cast<float>(width);
  }
  float squares = 0;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) {
    const float centred = ToFloat(from[i]) - mean;
    squares += centred * centred;
  }
  const float norm = rsqrtf(BlockSum(squares) / static_cast<float>(width) + eps);
  for (int64_t i = threadIdx.x; i < width; i += kThreads) {
    const float normed = Round<T>((ToFloat(from[i]) - mean) * norm);
    const float factor = Round<T>(1.0f + ToFloat(scale[table + i]));
    const float product = Round<T>(__fmul_rn(normed, factor));
    out[row * width + i] = FromFloat<T>(__fadd_rn(product, ToFloat(shift[table + i])));
  }
}

template <typename T>
__global__ void AddGatedKernel(T* x, const T* y, const T* gate, int64_t tokens, int64_t width,
                               Spans spans) {
  const int64_t row = blockIdx.x;
  const int64_t table = TableRow(spans, row % tokens) * width;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) {
    const float product =
        Round<T>(__fmul_rn(ToFloat(y[row * width + i]), ToFloat(gate[table + i])));
    x[row * width + i] = FromFloat<T>(__fadd_rn(ToFloat(x[row * width + i]), product));
  }
}

template <typename T>
__global__ void RmsRotaryKernel(const T* x, const T* weight, const float* cos, const float* sin,
                                T* out, int64_t tokens, int64_t width, float eps) {
  const int64_t row = blockIdx.x;
  const int64_t angles = row % tokens * (width / 2);
  const T* from = x + row * width;
  float squares = 0;
  for (int64_t i = threadIdx.x; i < width; i += kThreads)
    squares += ToFloat(from[i]) * ToFloat(from[i]);
  const float norm = rsqrtf(BlockSum(squares) / static_cast<float>(width) + eps);
  for (int64_t i = threadIdx.x; i < width / 2; i += kThreads) {
    const float a = Round<T>(ToFloat(from[2 * i]) * norm * ToFloat(weight[2 * i]));
    const float b = Round<T>(ToFloat(from[2 * i + 1]) * norm * ToFloat(weight[2 * i + 1]));
    const float c = cos[angles + i];
    const float s = sin[angles + i];
    out[row * width + 2 * i] = FromFloat<T>(__fmul_rn(a, c) - __fmul_rn(b, s));
    out[row * width + 2 * i + 1] = FromFloat<T>(__fmul_rn(b, c) + __fmul_rn(a, s));
  }
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

}  // namespace

cudaError_t NormModulate(Element element, bool is_layer, const void* x, const void* shift,
                         const void* scale, void* out, int64_t rows, int64_t tokens, int64_t width,
                         float eps, const Spans& spans, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return Dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    const auto kernel = is_layer ? NormModulateKernel<T, true> : NormModulateKernel<T, false>;
    kernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(
        static_cast<const T*>(x), static_cast<const T*>(shift), static_cast<const T*>(scale),
        static_cast<T*>(out), tokens, width, eps, spans);
  });
}

cudaError_t AddGated(Element element, void* x, const void* y, const void* gate, int64_t rows,
                     int64_t tokens, int64_t width, const Spans& spans, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return Dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    AddGatedKernel<T><<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(
        static_cast<T*>(x), static_cast<const T*>(y), static_cast<const T*>(gate), tokens, width,
        spans);
  });
}

cudaError_t RmsRotary(Element element, const void* x, const void* weight, const float* cos,
                      const float* sin, void* out, int64_t rows, int64_t tokens, int64_t width,
                      float eps, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return Dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    RmsRotaryKernel<T><<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(
        static_cast<const T*>(x), static_cast<const T*>(weight), cos, sin, static_cast<T*>(out),
        tokens, width, eps);
  });
}

}  // namespace kino::engine::cuda
