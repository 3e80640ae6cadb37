#include <algorithm>

#include "engine/core/device_math.cuh"
#include "engine/quant/cuda/gguf_kernels.h"
#include "engine/quant/gguf_blocks.h"

namespace kino::engine::cuda {
namespace {

// A thread an element: neighbours read the same few bytes and write side by side.
template <GgmlType kType, typename T>
__global__ void DecodeKernel(const uint8_t* blocks, int64_t elements, T* out) {
  using Block = GgufBlock<kType>;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < elements;
       i += stride) {
    const uint8_t* block = blocks + i / Block::kElements * Block::kBytes;
    const int element = static_cast<int>(i % Block::kElements);
    out[i] = FromFloat<T>(
        GgufElement(Block::Scale(block, element / Block::kRun), Block::Quant(block, element)));
  }
}

template <GgmlType kType>
cudaError_t Launch(const uint8_t* blocks, int64_t count, Element element, void* out,
                   cudaStream_t stream, int64_t max_grid) {
  const int64_t elements = count * GgufBlock<kType>::kElements;
  if (elements == 0) return cudaSuccess;
  const auto grid =
      static_cast<unsigned>(std::min<int64_t>((elements + kThreads - 1) / kThreads, max_grid));
  return Dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    const auto kernel = DecodeKernel<kType, T>;
    KINO_LAUNCH(kernel, grid, kThreads, stream)(blocks, elements, static_cast<T*>(out));
  });
}

}  // namespace

cudaError_t DecodeGguf(GgmlType type, const uint8_t* blocks, int64_t count, Element element,
                       void* out, cudaStream_t stream, int64_t max_grid) {
  switch (type) {
    case GgmlType::kQ4_0:
      return Launch<GgmlType::kQ4_0>(blocks, count, element, out, stream, max_grid);
    case GgmlType::kQ4_1:
      return Launch<GgmlType::kQ4_1>(blocks, count, element, out, stream, max_grid);
    case GgmlType::kQ5_0:
      return Launch<GgmlType::kQ5_0>(blocks, count, element, out, stream, max_grid);
    case GgmlType::kQ5_1:
      return Launch<GgmlType::kQ5_1>(blocks, count, element, out, stream, max_grid);
    case GgmlType::kQ8_0:
      return Launch<GgmlType::kQ8_0>(blocks, count, element, out, stream, max_grid);
    case GgmlType::kQ2_K:
      return Launch<GgmlType::kQ2_K>(blocks, count, element, out, stream, max_grid);
    case GgmlType::kQ3_K:
      return Launch<GgmlType::kQ3_K>(blocks, count, element, out, stream, max_grid);
    case GgmlType::kQ4_K:
      return Launch<GgmlType::kQ4_K>(blocks, count, element, out, stream, max_grid);
    case GgmlType::kQ5_K:
      return Launch<GgmlType::kQ5_K>(blocks, count, element, out, stream, max_grid);
    case GgmlType::kQ6_K:
      return Launch<GgmlType::kQ6_K>(blocks, count, element, out, stream, max_grid);
    case GgmlType::kIQ4_NL:
      return Launch<GgmlType::kIQ4_NL>(blocks, count, element, out, stream, max_grid);
    case GgmlType::kIQ4_XS:
      return Launch<GgmlType::kIQ4_XS>(blocks, count, element, out, stream, max_grid);
    case GgmlType::kNone:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace kino::engine::cuda
