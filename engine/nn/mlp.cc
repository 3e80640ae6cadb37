#include "engine/nn/mlp.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>

#include <algorithm>

namespace kino::engine {

GeluMlp GeluMlp::FeedForward(const WeightScope& scope, int64_t dim) {
  return GeluMlp(scope.Linear("net.0.proj", dim, 4 * dim), scope.Linear("net.2", 4 * dim, dim));
}

GeluMlp GeluMlp::TextProjection(const WeightScope& scope, int64_t in, int64_t dim) {
  return GeluMlp(scope.Linear("linear_1", in, dim), scope.Linear("linear_2", dim, dim));
}

at::Tensor GeluMlp::Forward(const at::Tensor& x, int64_t tokens_at_once) const {
  if (tokens_at_once > 0 && tokens_at_once < x.size(1)) {
    at::Tensor out;
    for (int64_t start = 0; start < x.size(1); start += tokens_at_once) {
      const int64_t count = std::min(tokens_at_once, x.size(1) - start);
      // In one piece: a product of several rows with gaps between them would copy the weights.
      const at::Tensor part = Forward(x.narrow(1, start, count).contiguous());
      if (!out.defined()) out = at::empty({x.size(0), x.size(1), part.size(2)}, part.options());
      out.narrow(1, start, count).copy_(part);
    }
    return out;
  }
  at::Tensor hidden = first_.Apply(x);
  return second_.Apply(at::gelu_(hidden, "tanh"));
}

}  // namespace kino::engine
