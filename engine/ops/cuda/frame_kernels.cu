#include "engine/ops/cuda/frame_kernels.h"

#include "engine/core/device_math.cuh"

namespace kino::engine::cuda {
namespace {

template <typename T>
__global__ void FramesAsBytesKernel(const T* pixels, uint8_t* bytes, int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const float unit = Round<T>(__fadd_rn(Round<T>(__fmul_rn(ToFloat(pixels[i]), 0.5f)), 0.5f));
  // fmaxf gives the other one of NaN.
  bytes[i] = static_cast<uint8_t>(rintf(__fmul_rn(fminf(fmaxf(unit, 0.0f), 1.0f), 255.0f)));
}

}  // namespace

cudaError_t FramesAsBytes(Element element, const void* pixels, uint8_t* bytes, int64_t count,
                          cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  return Dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    KINO_LAUNCH(FramesAsBytesKernel<T>, static_cast<unsigned>((count + kThreads - 1) / kThreads),
                kThreads, stream)
    (static_cast<const T*>(pixels), bytes, count);
  });
}

}  // namespace kino::engine::cuda
