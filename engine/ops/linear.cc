#include "engine/ops/linear.h"

#include <ATen/ops/linear.h>

#include <vector>

#include "engine/core/trace.h"

namespace kino::engine {

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
  // With a single row of floats, the CPU's product has other last bits when the matrix does not
  // start at a multiple of 16 bytes, as it may in a mapped file and does not in a slot. With two
  // rows it does not depend on where the matrix is, and costs the same.
  if (!RunsOnCpu(x) || x.scalar_type() != at::kFloat || x.numel() != x.size(-1))
    return at::linear(x, weight, bias);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = weight.size(0);
  return at::linear(x.reshape({1, -1}).expand({2, -1}), weight, bias).narrow(0, 0, 1).view(shape);
}

}  // namespace kino::engine
