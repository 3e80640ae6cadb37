#include "engine/nn/timestep_embedding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/silu.h>

#include <cmath>

namespace kino::engine {

at::Tensor SinusoidalTimesteps(const at::Tensor& t, int64_t dim) {
  const int64_t half = dim / 2;
  at::Tensor exponent =
      at::arange(0, half, at::TensorOptions().dtype(at::kFloat).device(t.device()));
  exponent = exponent.mul_(-std::log(10000.0)).div_(static_cast<double>(half));
  const at::Tensor angles = t.unsqueeze(1) * exponent.exp_().unsqueeze(0);
  return at::cat({angles.cos(), angles.sin()}, 1);
}

TimestepEmbedder::TimestepEmbedder(const WeightScope& scope, int64_t in, int64_t dim)
    : in_(in),
      linear_1_(scope.Linear("linear_1", in, dim)),
      linear_2_(scope.Linear("linear_2", dim, dim)) {}

at::Tensor TimestepEmbedder::Forward(const at::Tensor& t, c10::ScalarType dtype) const {
  at::Tensor hidden = linear_1_.Apply(SinusoidalTimesteps(t, in_).to(dtype));
  return linear_2_.Apply(at::silu_(hidden));
}

}  // namespace kino::engine
