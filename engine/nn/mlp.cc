#include "engine/nn/mlp.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>

#include <algorithm>

#include "engine/ops/swiglu.h"

namespace kino::engine {

Mlp Mlp::FeedForward(const WeightScope& scope, int64_t dim, const Options& options) {
  const int64_t inner = options.inner > 0 ? options.inner : 4 * dim;
  const int64_t first = options.activation == Activation::kGeluTanh ? inner : 2 * inner;
  return Mlp(scope.Linear("net.0.proj", dim, first, options.bias), options.activation,
             scope.Linear("net.2", inner, dim, options.bias));
}

Mlp Mlp::TextProjection(const WeightScope& scope, int64_t in, int64_t dim) {
  return Mlp(scope.Linear("linear_1", in, dim), Activation::kGeluTanh,
             scope.Linear("linear_2", dim, dim));
}

at::Tensor Mlp::Forward(const at::Tensor& x, int64_t tokens_at_once) const {
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
  if (activation_ == Activation::kGeluTanh) return second_.Apply(at::gelu_(hidden, "tanh"));
  hidden = SwiGlu(hidden, activation_ == Activation::kSwiGluGateFirst);
  return second_.Apply(hidden);
}

}  // namespace kino::engine
