#include "engine/ops/swiglu.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/silu.h>

#include <vector>

#include "engine/core/kernel_counter.h"
#include "engine/core/trace.h"
#include "engine/ops/cpu_rows.h"
#include "engine/ops/row_loop.h"
#ifdef KINO_WITH_CUDA
#include "engine/ops/cuda/launch.h"
#endif

namespace kino::engine {

at::Tensor SwiGluComposed(const at::Tensor& x, bool gate_first) {
  const int64_t half = x.size(-1) / 2;
  const at::Tensor value = x.narrow(-1, gate_first ? half : 0, half);
  return at::silu(x.narrow(-1, gate_first ? 0 : half, half)).mul_(value);
}

at::Tensor SwiGlu(const at::Tensor& x, bool gate_first) {
  TORCH_CHECK(x.size(-1) % 2 == 0, "SwiGLU of ", x.sizes(), ", expected an even number");
  const bool traces_gpu = x.is_meta() && RunsOnGpu(x) && x.is_contiguous();
#ifdef KINO_WITH_CUDA
  const bool launches = cuda::ElementOf(x.scalar_type()) && cuda::CanLaunch(x);
#else
  const bool launches = false;
#endif
  if (!launches && !traces_gpu && !cpu::FusesRows(x, x)) return SwiGluComposed(x, gate_first);
  const int64_t half = x.size(-1) / 2;
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = half;
  at::Tensor out = at::empty(shape, x.options());
  if (out.numel() == 0) return out;
  if (x.is_meta()) {
    CountKernel({x}, {out});
    return out;
  }
#ifdef KINO_WITH_CUDA
  if (launches) {
    const c10::cuda::CUDAGuard guard(x.device());
    C10_CUDA_CHECK(cuda::SwiGlu(*cuda::ElementOf(x.scalar_type()), x.const_data_ptr(),
                                out.mutable_data_ptr(), out.numel() / half, half, gate_first,
                                cuda::StreamOf(x)));
    return out;
  }
#endif
  cpu::WithRowType(x, [&](auto zero) {
    using T = decltype(zero);
    const T* from = cpu::Data<T>(x);
    T* to = cpu::MutableData<T>(out);
    at::parallel_for(0, out.numel() / half, cpu::RowsPerTask(half),
                     [&](int64_t begin, int64_t end) {
                       for (int64_t row = begin; row < end; ++row) {
                         const T* pair = from + row * 2 * half;
                         cpu::MulSiluRow(pair + (gate_first ? half : 0),
                                         pair + (gate_first ? 0 : half), to + row * half, half);
                       }
                     });
  });
  return out;
}

}  // namespace kino::engine
