#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <type_traits>

#include "engine/core/cuda_launch.h"
#include "engine/quant/cuda/gguf_kernels.h"
#include "engine/quant/gguf_blocks.h"

namespace kino::engine::cuda {
namespace {

constexpr int kThreads = 256;

__device__ void Store(float value, float* to) { *to = value; }
__device__ void Store(float value, __half* to) { *to = __float2half_rn(value); }
__device__ void Store(float value, __nv_bfloat16* to) { *to = __float2bfloat16_rn(value); }

// A thread an element: neighbours read the same few bytes and write side by side.
template <GgmlType kType, typename T>
__global__ void DecodeKernel(const uint8_t* blocks, int64_t elements, T* out) {
  using Block = GgufBlock<kType>;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < elements;
       i += stride) {
    const uint8_t* block = blocks + i / Block::kElements * Block::kBytes;
    const int element = static_cast<int>(i % Block::kElements);
    Store(GgufElement(Block::Scale(block, element / Block::kRun), Block::Quant(block, element)),
          out + i);
  }
}

template <GgmlType kType>
cudaError_t Launch(const uint8_t* blocks, int64_t count, GgufOutput output, void* out,
                   cudaStream_t stream, int64_t max_grid) {
  const int64_t elements = count * GgufBlock<kType>::kElements;
  if (elements == 0) return cudaSuccess;
  const auto grid =
      static_cast<unsigned>(std::min<int64_t>((elements + kThreads - 1) / kThreads, max_grid));
  const auto decode = [&](auto* to) {
    const auto kernel = DecodeKernel<kType, std::remove_pointer_t<decltype(to)>>;
    KINO_LAUNCH(kernel, grid, kThreads, stream)(blocks, elements, to);
  };
  switch (output) {
    case GgufOutput::kFloat:
      decode(static_cast<float*>(out));
      break;
    case GgufOutput::kHalf:
      decode(static_cast<__half*>(out));
      break;
    case GgufOutput::kBFloat16:
      decode(static_cast<__nv_bfloat16*>(out));
      break;
  }
  return cudaGetLastError();
}

}  // namespace

cudaError_t DecodeGguf(GgmlType type, const uint8_t* blocks, int64_t count, GgufOutput output,
                       void* out, cudaStream_t stream, int64_t max_grid) {
  switch (type) {
    case GgmlType::kQ4_0:
      return Launch<GgmlType::kQ4_0>(blocks, count, output, out, stream, max_grid);
    case GgmlType::kQ4_1:
      return Launch<GgmlType::kQ4_1>(blocks, count, output, out, stream, max_grid);
    case GgmlType::kQ5_0:
      return Launch<GgmlType::kQ5_0>(blocks, count, output, out, stream, max_grid);
    case GgmlType::kQ5_1:
      return Launch<GgmlType::kQ5_1>(blocks, count, output, out, stream, max_grid);
    case GgmlType::kQ8_0:
      return Launch<GgmlType::kQ8_0>(blocks, count, output, out, stream, max_grid);
    case GgmlType::kQ2_K:
      return Launch<GgmlType::kQ2_K>(blocks, count, output, out, stream, max_grid);
    case GgmlType::kQ3_K:
      return Launch<GgmlType::kQ3_K>(blocks, count, output, out, stream, max_grid);
    case GgmlType::kQ4_K:
      return Launch<GgmlType::kQ4_K>(blocks, count, output, out, stream, max_grid);
    case GgmlType::kQ5_K:
      return Launch<GgmlType::kQ5_K>(blocks, count, output, out, stream, max_grid);
    case GgmlType::kQ6_K:
      return Launch<GgmlType::kQ6_K>(blocks, count, output, out, stream, max_grid);
    case GgmlType::kIQ4_NL:
      return Launch<GgmlType::kIQ4_NL>(blocks, count, output, out, stream, max_grid);
    case GgmlType::kIQ4_XS:
      return Launch<GgmlType::kIQ4_XS>(blocks, count, output, out, stream, max_grid);
    case GgmlType::kNone:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace kino::engine::cuda
