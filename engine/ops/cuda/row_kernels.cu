#include "engine/ops/cuda/row_kernels.h"

#include "engine/core/device_math.cuh"

namespace kino::engine::cuda {
namespace {

__device__ int64_t TableRow(const Spans& spans, int64_t token) {
  for (int i = 0; i < spans.count - 1; ++i) {
    if (token < spans.end[i]) return spans.row[i];
  }
  return spans.row[spans.count - 1];
}

// Where in the tables the parameters of `row` begin.
__device__ int64_t TableOffset(const Rows& rows, int64_t row) {
  return (row / rows.tokens * rows.batch_rows + TableRow(rows.spans, row % rows.tokens)) *
         rows.width;
}

// 1 / sqrt(mean((x - mean)^2) + eps) over the block's row.
template <typename T>
__device__ float InverseDeviation(const T* x, float mean, int64_t width, float eps) {
  float squares = 0;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) {
    const float centred = ToFloat(x[i]) - mean;
    squares += centred * centred;
  }
  return rsqrtf(BlockSum(squares) / static_cast<float>(width) + eps);
}

// The mean of the block's row.
template <typename T>
__device__ float MeanOf(const T* x, int64_t width) {
  float sum = 0;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) sum += ToFloat(x[i]);
  return BlockSum(sum) / static_cast<float>(width);
}

template <typename T, bool kIsLayer>
__global__ void NormModulateKernel(const T* x, const T* weight, const T* bias, const T* shift,
                                   const T* scale, T* out, bool rounds_once, float eps, Rows rows) {
  const int64_t row = blockIdx.x;
  const int64_t table = TableOffset(rows, row), width = rows.width;
  const T* from = x + row * width;
  const float mean = kIsLayer ? MeanOf(from, width) : 0.0f;
  const float norm = InverseDeviation(from, mean, width, eps);
  for (int64_t i = threadIdx.x; i < width; i += kThreads) {
    float normed = (ToFloat(from[i]) - mean) * norm;
    if (weight != nullptr) normed = normed * ToFloat(weight[i]) + ToFloat(bias[i]);
    float factor = 1.0f + ToFloat(scale[table + i]);
    if (!rounds_once) {
      normed = Round<T>(normed);
      factor = Round<T>(factor);
    }
    float product = __fmul_rn(normed, factor);
    if (shift != nullptr) {
      if (!rounds_once) product = Round<T>(product);
      product = __fadd_rn(product, ToFloat(shift[table + i]));
    }
    out[row * width + i] = FromFloat<T>(product);
  }
}

template <typename T>
__global__ void AddGatedKernel(T* x, const T* y, const T* gate, Rows rows) {
  const int64_t row = blockIdx.x;
  const int64_t table = TableOffset(rows, row), width = rows.width;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) {
    const float product =
        Round<T>(__fmul_rn(ToFloat(y[row * width + i]), ToFloat(gate[table + i])));
    x[row * width + i] = FromFloat<T>(__fadd_rn(ToFloat(x[row * width + i]), product));
  }
}

template <typename T>
__global__ void AddNormGatedKernel(T* x, const T* y, const T* gate, float eps, Rows rows) {
  const int64_t row = blockIdx.x;
  const int64_t table = TableOffset(rows, row), width = rows.width;
  const T* from = y + row * width;
  const float norm = InverseDeviation(from, 0.0f, width, eps);
  for (int64_t i = threadIdx.x; i < width; i += kThreads) {
    const float product = Round<T>(ToFloat(from[i]) * norm * ToFloat(gate[table + i]));
    x[row * width + i] = FromFloat<T>(__fadd_rn(ToFloat(x[row * width + i]), product));
  }
}

template <typename T>
__global__ void SwiGluKernel(const T* x, T* out, int64_t half, bool gate_first) {
  const int64_t row = blockIdx.x;
  const T* value = x + row * 2 * half + (gate_first ? half : 0);
  const T* gate = x + row * 2 * half + (gate_first ? 0 : half);
  for (int64_t i = threadIdx.x; i < half; i += kThreads) {
    const float gating = Round<T>(Silu(ToFloat(gate[i])));
    out[row * half + i] = FromFloat<T>(__fmul_rn(ToFloat(value[i]), gating));
  }
}

// Wide heads: a block for each.
template <typename T>
__global__ void NormRotaryKernel(const T* x, const T* weight, const T* bias, const float* cos,
                                 const float* sin, T* out, float eps, RotaryRows rows) {
  const int64_t heads = rows.width / rows.head, head = blockIdx.x % heads;
  const int64_t row = blockIdx.x / heads, batch = row / rows.tokens, token = row % rows.tokens;
  const int64_t offset = token * rows.width + head * rows.head;
  const T* from = x + batch * rows.batch_stride + offset;
  T* to = out + batch * rows.out_batch_stride + offset;
  const float mean = bias == nullptr ? 0.0f : MeanOf(from, rows.head);
  const float norm = InverseDeviation(from, mean, rows.head, eps);
  const auto at = [&](int64_t i) {
    const float normed = (ToFloat(from[i]) - mean) * norm * ToFloat(weight[i]);
    return bias == nullptr ? normed : normed + ToFloat(bias[i]);
  };
  if (cos == nullptr || token < rows.first) {
    for (int64_t i = threadIdx.x; i < rows.head; i += kThreads) to[i] = FromFloat<T>(at(i));
    return;
  }
  const int64_t angles = (token - rows.first) * rows.angles + head * rows.head / 2 % rows.angles;
  for (int64_t i = threadIdx.x; i < rows.head / 2; i += kThreads) {
    const float a = Round<T>(at(2 * i));
    const float b = Round<T>(at(2 * i + 1));
    const float c = cos[angles + i];
    const float s = sin[angles + i];
    to[2 * i] = FromFloat<T>(__fmul_rn(a, c) - __fmul_rn(b, s));
    to[2 * i + 1] = FromFloat<T>(__fmul_rn(b, c) + __fmul_rn(a, s));
  }
}

}  // namespace

cudaError_t NormModulate(Element element, bool is_layer, bool rounds_once, const void* x,
                         const void* weight, const void* bias, const void* shift, const void* scale,
                         void* out, const Rows& rows, float eps, cudaStream_t stream) {
  if (rows.rows == 0) return cudaSuccess;
  return Dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    const auto kernel = is_layer ? NormModulateKernel<T, true> : NormModulateKernel<T, false>;
    KINO_LAUNCH(kernel, static_cast<unsigned>(rows.rows), kThreads, stream)
    (static_cast<const T*>(x), static_cast<const T*>(weight), static_cast<const T*>(bias),
     static_cast<const T*>(shift), static_cast<const T*>(scale), static_cast<T*>(out), rounds_once,
     eps, rows);
  });
}

cudaError_t AddGated(Element element, void* x, const void* y, const void* gate, const Rows& rows,
                     cudaStream_t stream) {
  if (rows.rows == 0) return cudaSuccess;
  return Dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    KINO_LAUNCH(AddGatedKernel<T>, static_cast<unsigned>(rows.rows), kThreads, stream)
    (static_cast<T*>(x), static_cast<const T*>(y), static_cast<const T*>(gate), rows);
  });
}

cudaError_t AddNormGated(Element element, void* x, const void* y, const void* gate,
                         const Rows& rows, float eps, cudaStream_t stream) {
  if (rows.rows == 0) return cudaSuccess;
  return Dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    KINO_LAUNCH(AddNormGatedKernel<T>, static_cast<unsigned>(rows.rows), kThreads, stream)
    (static_cast<T*>(x), static_cast<const T*>(y), static_cast<const T*>(gate), eps, rows);
  });
}

cudaError_t SwiGlu(Element element, const void* x, void* out, int64_t rows, int64_t half,
                   bool gate_first, cudaStream_t stream) {
  if (rows == 0 || half == 0) return cudaSuccess;
  return Dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    KINO_LAUNCH(SwiGluKernel<T>, static_cast<unsigned>(rows), kThreads, stream)
    (static_cast<const T*>(x), static_cast<T*>(out), half, gate_first);
  });
}

cudaError_t NormRotary(Element element, const void* x, const void* weight, const void* bias,
                       const float* cos, const float* sin, void* out, const RotaryRows& rows,
                       float eps, cudaStream_t stream) {
  if (rows.rows == 0) return cudaSuccess;
  const int64_t blocks = rows.rows * (rows.width / rows.head);
  return Dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    KINO_LAUNCH(NormRotaryKernel<T>, static_cast<unsigned>(blocks), kThreads, stream)
    (static_cast<const T*>(x), static_cast<const T*>(weight), static_cast<const T*>(bias), cos, sin,
     static_cast<T*>(out), eps, rows);
  });
}

}  // namespace kino::engine::cuda
