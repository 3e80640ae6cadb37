#include "engine/ops/video_frames.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/nan_to_num.h>

#include "engine/core/kernel_counter.h"
#include "engine/core/trace.h"
#include "engine/ops/cpu_rows.h"
#include "engine/ops/row_loop.h"
#ifdef KINO_WITH_CUDA
#include "engine/ops/cuda/frame_kernels.h"
#include "engine/ops/cuda/launch.h"
#endif

namespace kino::engine {
namespace {

at::Tensor InUnitRange(const at::Tensor& pixels) {
  return pixels.mul(0.5).add_(0.5).clamp_(0.0, 1.0);
}

}  // namespace

at::Tensor FramesAsFloats(const at::Tensor& pixels) {
  return ToHost(InUnitRange(pixels), at::kFloat).contiguous();
}

at::Tensor FramesAsBytesComposed(const at::Tensor& pixels) {
  return at::nan_to_num(InUnitRange(pixels).to(at::kFloat)).mul_(255.0).round_().to(at::kByte);
}

at::Tensor FramesAsBytes(const at::Tensor& strided) {
  const at::Tensor pixels = strided.contiguous();
  at::Tensor bytes = at::empty(pixels.sizes(), pixels.options().dtype(at::kByte));
  if (pixels.numel() == 0) return bytes;
  if (pixels.is_meta()) {
    CountKernel({pixels}, {bytes});
    return bytes;
  }
#ifdef KINO_WITH_CUDA
  if (cuda::CanLaunch(pixels) && cuda::ElementOf(pixels.scalar_type())) {
    const c10::cuda::CUDAGuard guard(pixels.device());
    C10_CUDA_CHECK(cuda::FramesAsBytes(*cuda::ElementOf(pixels.scalar_type()),
                                       pixels.const_data_ptr(), bytes.mutable_data_ptr<uint8_t>(),
                                       pixels.numel(), cuda::StreamOf(pixels)));
    return bytes;
  }
#endif
  if (!cpu::FusesRows(pixels, pixels)) return FramesAsBytesComposed(pixels);
  cpu::WithRowType(pixels, [&](auto zero) {
    using T = decltype(zero);
    const T* from = cpu::Data<T>(pixels);
    uint8_t* to = bytes.mutable_data_ptr<uint8_t>();
    at::parallel_for(0, pixels.numel(), cpu::RowsPerTask(1), [&](int64_t begin, int64_t end) {
      cpu::PixelsAsBytes(from + begin, to + begin, end - begin);
    });
  });
  return bytes;
}

}  // namespace kino::engine
