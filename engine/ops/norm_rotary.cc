#include "engine/ops/norm_rotary.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/layer_norm.h>
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

void Check(const at::Tensor& x, const at::Tensor& weight, const RotaryTable& table,
           const at::Tensor& bias) {
  TORCH_CHECK(x.dim() == 3 && weight.dim() == 1 && x.size(2) % weight.size(0) == 0,
              "norm and rotary: the input is ", x.sizes(), ", the weight ", weight.sizes(),
              ", expected [B, L, D] and a divisor of D");
  TORCH_CHECK(!bias.defined() || bias.sizes() == weight.sizes(), "norm and rotary: the bias is ",
              bias.sizes(), ", the weight ", weight.sizes());
  if (!table.cos.defined()) return;
  TORCH_CHECK(weight.size(0) % 2 == 0, "rotary: pairs of ", weight.size(0), " numbers");
  TORCH_CHECK(table.first >= 0 && table.cos.size(0) == x.size(1) - table.first &&
                  (table.cos.size(1) == x.size(2) / 2 || table.cos.size(1) == weight.size(0) / 2),
              "rotary table is ", table.cos.sizes(), ", expected [", x.size(1) - table.first, ", ",
              x.size(2) / 2, " or ", weight.size(0) / 2, "]");
}

// Its rows of one sequence follow each other without gaps.
bool HasDenseRows(const at::Tensor& x) {
  return x.stride(2) == 1 && (x.size(1) <= 1 || x.stride(1) == x.size(2));
}

bool FusesOnCpu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                const at::Tensor& out) {
  return RunsOnCpu(x) && HasDenseRows(x) && HasDenseRows(out) && weight.is_contiguous() &&
         (!bias.defined() || (bias.is_contiguous() && bias.scalar_type() == x.scalar_type())) &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) &&
         weight.scalar_type() == x.scalar_type() && out.scalar_type() == x.scalar_type();
}

void NormRotaryOnCpu(const at::Tensor& x, const at::Tensor& weight, double eps,
                     const RotaryTable& table, const at::Tensor& bias, const at::Tensor& out) {
  const int64_t length = x.size(1), width = x.size(2), head = weight.size(0);
  const int64_t angles = table.cos.defined() ? table.cos.size(1) : 1;
  const float* cos = table.cos.defined() ? table.cos.const_data_ptr<float>() : nullptr;
  const float* sin = table.cos.defined() ? table.sin.const_data_ptr<float>() : nullptr;
  cpu::WithRowType(x, [&](auto zero) {
    using T = decltype(zero);
    const T* weights = cpu::Data<T>(weight);
    const T* biases = bias.defined() ? cpu::Data<T>(bias) : nullptr;
    const T* from = cpu::Data<T>(x);
    T* to = cpu::MutableData<T>(out);
    at::parallel_for(0, x.size(0) * length, cpu::RowsPerTask(2 * width),
                     [&](int64_t begin, int64_t end) {
                       for (int64_t row = begin; row < end; ++row) {
                         const int64_t batch = row / length, token = row % length;
                         const T* source = from + batch * x.stride(0) + token * width;
                         T* target = to + batch * out.stride(0) + token * width;
                         const bool turns = cos != nullptr && token >= table.first;
                         const int64_t at = (token - table.first) * angles;
                         for (int64_t i = 0; i < width; i += head) {
                           cpu::NormRotaryRow(source + i, weights, biases,
                                              turns ? cos + at + i / 2 % angles : nullptr,
                                              turns ? sin + at + i / 2 % angles : nullptr,
                                              target + i, head, static_cast<float>(eps));
                         }
                       }
                     });
  });
}

#ifdef KINO_WITH_CUDA
bool CanLaunch(const at::Tensor& x, const at::Tensor& weight, const RotaryTable& table,
               const at::Tensor& bias, const at::Tensor& out) {
  return cuda::ElementOf(x.scalar_type()) && x.is_cuda() && HasDenseRows(x) && HasDenseRows(out) &&
         cuda::CanLaunch(weight) && weight.scalar_type() == x.scalar_type() &&
         out.scalar_type() == x.scalar_type() &&
         (!bias.defined() || cuda::CanLaunch(weight, bias)) &&
         (!table.cos.defined() || cuda::CanLaunch(table.cos, table.sin));
}
#endif

}  // namespace

at::Tensor NormRotaryComposed(const at::Tensor& x, const at::Tensor& weight, double eps,
                              const RotaryTable& table, const at::Tensor& bias) {
  Check(x, weight, table, bias);
  const int64_t head = weight.size(0);
  const at::Tensor by_head = x.unflatten(2, {-1, head});
  const at::Tensor normed = bias.defined() ? at::layer_norm(by_head, {head}, weight, bias, eps)
                                           : at::rms_norm(by_head, {head}, weight, eps);
  if (!table.cos.defined()) return normed.flatten(2);
  const int64_t turned = x.size(1) - table.first, angles = table.cos.size(1);
  const at::Tensor out = normed.to(at::kFloat).flatten(2).clone();
  const at::Tensor pairs = out.narrow(1, table.first, turned).unflatten(2, {-1, angles, 2});
  const at::Tensor even = pairs.select(4, 0).clone(), odd = pairs.select(4, 1).clone();
  const at::Tensor cos = table.cos.unsqueeze(1), sin = table.sin.unsqueeze(1);
  pairs.select(4, 0).copy_(even * cos - odd * sin);
  pairs.select(4, 1).copy_(odd * cos + even * sin);
  return out.to(x.scalar_type());
}

void NormRotaryInto(const at::Tensor& x, const at::Tensor& weight, double eps,
                    const RotaryTable& table, at::Tensor out, const at::Tensor& bias) {
  Check(x, weight, table, bias);
  TORCH_CHECK(out.sizes() == x.sizes(), "norm and rotary: from ", x.sizes(), " into ", out.sizes());
  if (x.is_meta() && HasDenseRows(x) && HasDenseRows(out) &&
      (RunsOnGpu(x) || FusesOnCpu(x, weight, bias, out)))
    return CountKernel({x, weight, bias, table.cos, table.sin}, {out});
#ifdef KINO_WITH_CUDA
  if (CanLaunch(x, weight, table, bias, out)) {
    const c10::cuda::CUDAGuard guard(x.device());
    const bool turns = table.cos.defined();
    C10_CUDA_CHECK(cuda::NormRotary(
        *cuda::ElementOf(x.scalar_type()), x.const_data_ptr(), weight.const_data_ptr(),
        bias.defined() ? bias.const_data_ptr() : nullptr,
        turns ? table.cos.const_data_ptr<float>() : nullptr,
        turns ? table.sin.const_data_ptr<float>() : nullptr, out.mutable_data_ptr(),
        {.rows = x.size(0) * x.size(1),
         .tokens = x.size(1),
         .width = x.size(2),
         .head = weight.size(0),
         .first = table.first,
         .angles = turns ? table.cos.size(1) : 1,
         .batch_stride = x.stride(0),
         .out_batch_stride = out.stride(0)},
        static_cast<float>(eps), cuda::StreamOf(x)));
    return;
  }
#endif
  if (FusesOnCpu(x, weight, bias, out)) return NormRotaryOnCpu(x, weight, eps, table, bias, out);
  out.copy_(NormRotaryComposed(x, weight, eps, table, bias));
}

at::Tensor NormRotary(at::Tensor x, const at::Tensor& weight, double eps, const RotaryTable& table,
                      const at::Tensor& bias) {
  Check(x, weight, table, bias);
  // The rows are independent of each other and each is read before it is written.
  if (FusesOnCpu(x, weight, bias, x)) {
    if (!x.is_meta()) NormRotaryOnCpu(x, weight, eps, table, bias, x);
    return x;
  }
  if (RunsOnCpu(x) || !HasDenseRows(x)) return NormRotaryComposed(x, weight, eps, table, bias);
  at::Tensor out = at::empty_like(x);
  NormRotaryInto(x, weight, eps, table, out, bias);
  return out;
}

}  // namespace kino::engine
