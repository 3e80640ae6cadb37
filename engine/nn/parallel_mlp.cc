#include "engine/nn/parallel_mlp.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>

#include <algorithm>

namespace kino::engine {
namespace {

// Tokens that go through the first layer at a time, so that the inner width is held once, beside
// what attention saw, and not twice.
constexpr int64_t kInnerTokens = 2048;

}  // namespace

ParallelMlp::ParallelMlp(const WeightScope& scope, int64_t dim, int64_t inner)
    : dim_(dim),
      inner_(inner),
      proj_mlp_(scope.Linear("proj_mlp", dim, inner)),
      proj_out_(scope.Linear("proj_out", dim + inner, dim)) {}

at::Tensor ParallelMlp::Forward(at::Tensor attended, at::Tensor normed,
                                int64_t tokens_at_once) const {
  const int64_t tokens = attended.size(1);
  const int64_t at_once = tokens_at_once > 0 ? std::min(tokens_at_once, tokens) : tokens;
  at::Tensor out;
  for (int64_t start = 0; start < tokens; start += at_once) {
    const int64_t count = std::min(at_once, tokens - start);
    const at::Tensor inputs = at::empty({1, count, dim_ + inner_}, attended.options());
    inputs.narrow(2, 0, dim_).copy_(attended.narrow(1, start, count));
    if (count == tokens) attended.reset();
    for (int64_t inner = 0; inner < count; inner += kInnerTokens) {
      const int64_t part = std::min(kInnerTokens, count - inner);
      at::Tensor hidden = proj_mlp_.Apply(normed.narrow(1, start + inner, part));
      inputs.narrow(1, inner, part).narrow(2, dim_, inner_).copy_(at::gelu_(hidden, "tanh"));
    }
    if (count == tokens) {
      normed.reset();
      return proj_out_.Apply(inputs);
    }
    if (!out.defined()) out = at::empty_like(attended);
    out.narrow(1, start, count).copy_(proj_out_.Apply(inputs));
  }
  return out;
}

}  // namespace kino::engine
