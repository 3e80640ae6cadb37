#include "engine/ops/linear.h"

#include <ATen/Context.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/core/trace.h"

namespace kino::engine {
namespace {

std::vector<int64_t> OutputShape(const at::Tensor& x, const at::Tensor& weight) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = weight.size(0);
  return shape;
}

// With AVX-512, oneDNN's product of floats takes less than half the time of MKL's where MKL knows
// the processor only as one of another maker (docs/benchmarks.md). It does not depend on where the
// matrix is.
bool UsesOneDnn(const at::Tensor& x, const at::Tensor& weight) {
  return CpuOf(x).avx512 && at::globalContext().userEnabledMkldnn() && x.numel() > 0 &&
         weight.numel() > 0;
}

// oneDNN's scratch memory, which it takes from torch's allocator: each thread's copy of a block of
// the matrix. Measured with oneDNN 3.10; small products have none.
at::Tensor ScratchOnMeta(const at::Tensor& x, const at::Tensor& weight) {
  constexpr int64_t kMaxDepth = 2048, kFewRows = 32, kExtra = 256;
  const int64_t in = weight.size(1);
  if (x.numel() / in < kFewRows) return {};
  const int64_t block = std::min(in, kMaxDepth) * (in <= 512 ? 64 : 32) + kExtra;
  return at::empty({Trace::Current()->target().threads * block}, x.options());
}

// The operator that torch's own compiler uses.
at::Tensor OneDnnLinear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (x.is_meta()) {
    const at::Tensor scratch = ScratchOnMeta(x, weight);
    return at::empty(OutputShape(x, weight), x.options());
  }
  using Signature = at::Tensor(
      const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
      c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
                             .typed<Signature>();
  return op.call(x, weight, bias.defined() ? std::optional(bias) : std::nullopt, "none",
                 c10::List<std::optional<at::Scalar>>(), std::nullopt);
}

}  // namespace

bool ComputesInFloat(const at::Tensor& x) {
  if (!RunsOnCpu(x)) return false;
  return (x.scalar_type() == at::kBFloat16 && !CpuOf(x).bfloat16) ||
         (x.scalar_type() == at::kHalf && !CpuOf(x).float16);
}

at::Tensor Linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (ComputesInFloat(x)) {
    return Linear(x.to(at::kFloat), weight.to(at::kFloat),
                  bias.defined() ? bias.to(at::kFloat) : bias)
        .to(x.scalar_type());
  }
  if (!RunsOnCpu(x) || x.scalar_type() != at::kFloat) return at::linear(x, weight, bias);
  if (UsesOneDnn(x, weight)) return OneDnnLinear(x.contiguous(), weight, bias);
  // With a single row of floats, the CPU's product has other last bits when the matrix does not
  // start at a multiple of 16 bytes, as it may in a mapped file and does not in a slot. With two
  // rows it does not depend on where the matrix is, and costs the same.
  if (x.numel() != x.size(-1)) return at::linear(x, weight, bias);
  return at::linear(x.reshape({1, -1}).expand({2, -1}), weight, bias)
      .narrow(0, 0, 1)
      .view(OutputShape(x, weight));
}

}  // namespace kino::engine
