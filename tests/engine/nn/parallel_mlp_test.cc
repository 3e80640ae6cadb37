#include "engine/nn/parallel_mlp.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>

#include "tests/engine/nn/layer_weights.h"

namespace kino::engine {
namespace {

constexpr int64_t kDim = 4, kInner = 6;

TEST(ParallelMlpTest, TakesAttentionAndTheInnerWidthThroughOneLayer) {
  LayerWeights weights({{"proj_mlp.weight", {kInner, kDim}},
                        {"proj_mlp.bias", {kInner}},
                        {"proj_out.weight", {kDim, kDim + kInner}},
                        {"proj_out.bias", {kDim}}});
  const ParallelMlp mlp =
      weights.Load([](const WeightScope& scope) { return ParallelMlp(scope, kDim, kInner); });
  // The first layer takes 2048 tokens at a time.
  for (const int64_t tokens : {3, 5000}) {
    const at::Tensor attended = Random({1, tokens, kDim}, 1), normed = Random({1, tokens, kDim}, 2);
    const at::Tensor inner = at::gelu(
        at::linear(normed, weights.Get("proj_mlp.weight"), weights.Get("proj_mlp.bias")), "tanh");
    const at::Tensor expected =
        at::linear(at::cat({attended, inner}, 2), weights.Get("proj_out.weight"),
                   weights.Get("proj_out.bias"));
    for (const int64_t at_once : {0, 1999, 2100, 6000}) {
      EXPECT_LT(MaxError(mlp.Forward(attended, normed, at_once), expected), 1e-5)
          << tokens << " tokens, " << at_once << " at once";
    }
  }
}

}  // namespace
}  // namespace kino::engine
