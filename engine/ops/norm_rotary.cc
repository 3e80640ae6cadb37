#include "engine/ops/norm_rotary.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/rms_norm.h>

#include "engine/core/kernel_counter.h"
#include "engine/core/trace.h"
#include "engine/ops/cpu_rows.h"
#include "engine/ops/row_loop.h"
#ifdef KINO_WITH_CUDA
#include "engine/ops/cuda/launch.h"
#endif

namespace kino::engine {
namespace {

void Check(const at::Tensor& x, const at::Tensor& weight, const RotaryTable& table) {
  TORCH_CHECK(x.dim() == 3 && weight.dim() == 1 && x.size(2) % weight.size(0) == 0,
              "norm and rotary: the input is ", x.sizes(), ", the weight ", weight.sizes(),
              ", expected [B, L, D] and a divisor of D");
  if (!table.cos.defined()) return;
  TORCH_CHECK(weight.size(0) % 2 == 0, "rotary: pairs of ", weight.size(0), " numbers");
  TORCH_CHECK(table.cos.size(0) == x.size(1) && table.cos.size(1) == x.size(2) / 2,
              "rotary table is ", table.cos.sizes(), ", expected [", x.size(1), ", ", x.size(2) / 2,
              "]");
}

// Its rows of one sequence follow each other without gaps.
bool HasDenseRows(const at::Tensor& x) {
  return x.stride(2) == 1 && (x.size(1) <= 1 || x.stride(1) == x.size(2));
}

bool FusesOnCpu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& out) {
  return RunsOnCpu(x) && HasDenseRows(x) && HasDenseRows(out) && weight.is_contiguous() &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) &&
         weight.scalar_type() == x.scalar_type() && out.scalar_type() == x.scalar_type();
}

void NormRotaryOnCpu(const at::Tensor& x, const at::Tensor& weight, double eps,
                     const RotaryTable& table, const at::Tensor& out) {
  const int64_t length = x.size(1), width = x.size(2), head = weight.size(0);
  const float* cos = table.cos.defined() ? table.cos.const_data_ptr<float>() : nullptr;
  const float* sin = table.cos.defined() ? table.sin.const_data_ptr<float>() : nullptr;
  cpu::WithRowType(x, [&](auto zero) {
    using T = decltype(zero);
    const T* weights = cpu::Data<T>(weight);
    const T* from = cpu::Data<T>(x);
    T* to = cpu::MutableData<T>(out);
    at::parallel_for(0, x.size(0) * length, cpu::RowsPerTask(2 * width),
                     [&](int64_t begin, int64_t end) {
                       for (int64_t row = begin; row < end; ++row) {
                         const int64_t batch = row / length, token = row % length;
                         const T* source = from + batch * x.stride(0) + token * width;
                         T* target = to + batch * out.stride(0) + token * width;
                         const int64_t angles = token * width / 2;
                         for (int64_t i = 0; i < width; i += head) {
                           cpu::NormRotaryRow(source + i, weights,
                                              cos == nullptr ? nullptr : cos + angles + i / 2,
                                              sin == nullptr ? nullptr : sin + angles + i / 2,
                                              target + i, head, static_cast<float>(eps));
                         }
                       }
                     });
  });
}

#ifdef KINO_WITH_CUDA
bool CanLaunch(const at::Tensor& x, const at::Tensor& weight, const RotaryTable& table,
               const at::Tensor& out) {
  return cuda::ElementOf(x.scalar_type()) && x.is_cuda() && HasDenseRows(x) && HasDenseRows(out) &&
         cuda::CanLaunch(weight) && weight.scalar_type() == x.scalar_type() &&
         out.scalar_type() == x.scalar_type() &&
         (!table.cos.defined() || cuda::CanLaunch(table.cos, table.sin));
}
#endif

}  // namespace

at::Tensor NormRotaryComposed(const at::Tensor& x, const at::Tensor& weight, double eps,
                              const RotaryTable& table) {
  Check(x, weight, table);
  const int64_t head = weight.size(0);
  const at::Tensor normed = at::rms_norm(x.unflatten(2, {-1, head}), {head}, weight, eps);
  if (!table.cos.defined()) return normed.flatten(2);
  const at::Tensor pairs =
      normed.to(at::kFloat).flatten(2).view({x.size(0), x.size(1), x.size(2) / 2, 2});
  const at::Tensor even = pairs.select(3, 0);
  const at::Tensor odd = pairs.select(3, 1);
  at::Tensor out = at::empty(pairs.sizes(), pairs.options());
  out.select(3, 0).copy_(even * table.cos - odd * table.sin);
  out.select(3, 1).copy_(odd * table.cos + even * table.sin);
  return out.view(x.sizes()).to(x.scalar_type());
}

void NormRotaryInto(const at::Tensor& x, const at::Tensor& weight, double eps,
                    const RotaryTable& table, at::Tensor out) {
  Check(x, weight, table);
  TORCH_CHECK(out.sizes() == x.sizes(), "norm and rotary: from ", x.sizes(), " into ", out.sizes());
  if (x.is_meta() && HasDenseRows(x) && HasDenseRows(out) &&
      (RunsOnGpu(x) || FusesOnCpu(x, weight, out)))
    return CountKernel({x, weight, table.cos, table.sin}, {out});
#ifdef KINO_WITH_CUDA
  if (CanLaunch(x, weight, table, out)) {
    const c10::cuda::CUDAGuard guard(x.device());
    const bool turns = table.cos.defined();
    C10_CUDA_CHECK(cuda::NormRotary(
        *cuda::ElementOf(x.scalar_type()), x.const_data_ptr(), weight.const_data_ptr(),
        turns ? table.cos.const_data_ptr<float>() : nullptr,
        turns ? table.sin.const_data_ptr<float>() : nullptr, out.mutable_data_ptr(),
        {.rows = x.size(0) * x.size(1),
         .tokens = x.size(1),
         .width = x.size(2),
         .head = weight.size(0),
         .batch_stride = x.stride(0),
         .out_batch_stride = out.stride(0)},
        static_cast<float>(eps), cuda::StreamOf(x)));
    return;
  }
#endif
  if (FusesOnCpu(x, weight, out)) return NormRotaryOnCpu(x, weight, eps, table, out);
  out.copy_(NormRotaryComposed(x, weight, eps, table));
}

at::Tensor NormRotary(at::Tensor x, const at::Tensor& weight, double eps,
                      const RotaryTable& table) {
  Check(x, weight, table);
  // The rows are independent of each other and each is read before it is written.
  if (FusesOnCpu(x, weight, x)) {
    if (!x.is_meta()) NormRotaryOnCpu(x, weight, eps, table, x);
    return x;
  }
  if (RunsOnCpu(x) || !HasDenseRows(x)) return NormRotaryComposed(x, weight, eps, table);
  at::Tensor out = at::empty_like(x);
  NormRotaryInto(x, weight, eps, table, out);
  return out;
}

}  // namespace kino::engine
