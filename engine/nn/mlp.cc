#include "engine/nn/mlp.h"

#include <ATen/ops/gelu.h>

namespace kino::engine {

GeluMlp GeluMlp::FeedForward(const WeightScope& scope, int64_t dim) {
  return GeluMlp(scope.Linear("net.0.proj", dim, 4 * dim), scope.Linear("net.2", 4 * dim, dim));
}

GeluMlp GeluMlp::TextProjection(const WeightScope& scope, int64_t in, int64_t dim) {
  return GeluMlp(scope.Linear("linear_1", in, dim), scope.Linear("linear_2", dim, dim));
}

at::Tensor GeluMlp::Forward(const at::Tensor& x) const {
  at::Tensor hidden = first_.Apply(x);
  return second_.Apply(at::gelu_(hidden, "tanh"));
}

}  // namespace kino::engine
