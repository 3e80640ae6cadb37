#include "engine/nn/mlp.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/silu.h>

#include <algorithm>

#include "engine/ops/swiglu.h"

namespace kino::engine {
namespace {

// Half of what the first layer gives are gates.
bool IsGated(Mlp::Activation activation) {
  return activation == Mlp::Activation::kSwiGlu || activation == Mlp::Activation::kSwiGluGateFirst;
}

}  // namespace

Mlp Mlp::FeedForward(const WeightScope& scope, int64_t dim, const Options& options) {
  const int64_t inner = options.inner > 0 ? options.inner : 4 * dim;
  const int64_t first = IsGated(options.activation) ? 2 * inner : inner;
  return Mlp(scope.Linear("net.0.proj", dim, first, options.bias), options.activation,
             scope.Linear("net.2", inner, dim, options.bias));
}

Mlp Mlp::TextProjection(const WeightScope& scope, int64_t in, int64_t dim, Activation activation) {
  return Mlp(scope.Linear("linear_1", in, dim), activation, scope.Linear("linear_2", dim, dim));
}

Mlp Mlp::TwoLayers(const WeightScope& scope, std::string_view first, std::string_view second,
                   const Widths& widths, Activation activation, bool bias) {
  return Mlp(scope.Linear(first, widths.in, widths.inner, bias), activation,
             scope.Linear(second, widths.inner, widths.out, bias));
}

at::Tensor Mlp::Activated(at::Tensor hidden) const {
  switch (activation_) {
    case Activation::kGeluTanh:
      return at::gelu_(hidden, "tanh");
    case Activation::kGelu:
      return at::gelu_(hidden, "none");
    case Activation::kQuickGelu: {
      at::Tensor gate = hidden * 1.702;
      return hidden.mul_(gate.sigmoid_());
    }
    case Activation::kSilu:
      return at::silu_(hidden);
    case Activation::kSwiGlu:
      return SwiGlu(hidden, /*gate_first=*/false);
    case Activation::kSwiGluGateFirst:
      return SwiGlu(hidden, /*gate_first=*/true);
  }
  TORCH_CHECK(false, "an activation of number ", static_cast<int>(activation_));
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
  return second_.Apply(Activated(first_.Apply(x)));
}

}  // namespace kino::engine
