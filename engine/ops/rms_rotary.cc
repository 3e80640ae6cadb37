#include "engine/ops/rms_rotary.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "engine/core/trace.h"
#include "engine/ops/cpu_rows.h"
#include "engine/ops/rms_norm.h"
#ifdef KINO_WITH_CUDA

#include "engine/ops/cuda/launch.h"
#endif

namespace kino::engine {
namespace {

void Check(const at::Tensor& x, const RotaryTable& table) {
  TORCH_CHECK(x.dim() == 3 && x.size(2) % 2 == 0, "rotary input is ", x.sizes(),
              ", expected [B, L, even D]");
  TORCH_CHECK(table.cos.size(0) == x.size(1) && table.cos.size(1) == x.size(2) / 2,
              "rotary table is ", table.cos.sizes(), ", expected [", x.size(1), ", ", x.size(2) / 2,
              "]");
}

}  // namespace

at::Tensor RmsRotaryComposed(const at::Tensor& x, const at::Tensor& weight, double eps,
                             const RotaryTable& table) {
  Check(x, table);
  const at::Tensor normed = RmsNorm(x, weight, eps);
  const at::Tensor pairs = normed.to(at::kFloat).view({x.size(0), x.size(1), x.size(2) / 2, 2});
  const at::Tensor even = pairs.select(3, 0);
  const at::Tensor odd = pairs.select(3, 1);
  at::Tensor out = at::empty(pairs.sizes(), pairs.options());
  out.select(3, 0).copy_(even * table.cos - odd * table.sin);
  out.select(3, 1).copy_(odd * table.cos + even * table.sin);
  return out.view(x.sizes()).to(x.scalar_type());
}

at::Tensor RmsRotary(at::Tensor x, const at::Tensor& weight, double eps, const RotaryTable& table) {
  if (x.is_meta() && RunsOnGpu(x) && x.is_contiguous()) {
    Check(x, table);
    return at::empty_like(x);
  }
#ifdef KINO_WITH_CUDA
  if (const auto element = cuda::ElementOf(x);
      element && cuda::CanLaunch(x, weight) && cuda::CanLaunch(table.cos, table.sin)) {
    Check(x, table);
    const c10::cuda::CUDAGuard guard(x.device());
    at::Tensor out = at::empty_like(x);
    C10_CUDA_CHECK(cuda::RmsRotary(
        *element, x.const_data_ptr(), weight.const_data_ptr(), table.cos.const_data_ptr<float>(),
        table.sin.const_data_ptr<float>(), out.mutable_data_ptr(), x.size(0) * x.size(1), x.size(1),
        x.size(2), static_cast<float>(eps), cuda::StreamOf(x)));
    return out;
  }
#endif
  if (!RunsOnCpu(x) || x.scalar_type() != at::kFloat || !x.is_contiguous() ||
      !weight.is_contiguous()) {
    return RmsRotaryComposed(x, weight, eps, table);
  }
  Check(x, table);
  if (x.is_meta()) return x;
  const int64_t width = x.size(2);
  const int64_t length = x.size(1);
  float* data = x.mutable_data_ptr<float>();
  const float* weights = weight.const_data_ptr<float>();
  const float* cos = table.cos.const_data_ptr<float>();
  const float* sin = table.sin.const_data_ptr<float>();
  at::parallel_for(0, x.size(0) * length, std::max<int64_t>(1, 16384 / width),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t row = begin; row < end; ++row) {
                       const int64_t token = row % length;
                       cpu::RmsRotaryRow(data + row * width, weights, cos + token * width / 2,
                                         sin + token * width / 2, width, static_cast<float>(eps));
                     }
                   });
  return x;
}

}  // namespace kino::engine
