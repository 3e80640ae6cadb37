#include "engine/nn/token_refiner.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/silu.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/ops/attention.h"
#include "engine/ops/norm_modulate.h"

namespace kino::engine {
namespace {

constexpr double kNormEps = 1e-6;
constexpr int64_t kSinusoids = 256;

at::Tensor Normed(const at::Tensor& x, const WeightAndBias& norm) {
  return at::layer_norm(x, {x.size(-1)}, *norm.weight.get(), *norm.bias.get(), kNormEps);
}

// The mean of a text's tokens, summed in float32. text: [1, L, in], L > 0 -> [1, in]
at::Tensor Mean(const at::Tensor& text) {
  return (text.to(at::kFloat).sum(1) / static_cast<double>(text.size(1))).to(text.scalar_type());
}

}  // namespace

TokenRefiner::TokenRefiner(Component& component, const WeightScope& scope, const std::string& part,
                           const Options& options)
    : options_(options) {
  const int64_t d = options_.width;
  const WeightScope condition = scope.Sub("time_text_embed");
  time_embedder_ =
      std::make_unique<TimestepEmbedder>(condition.Sub("timestep_embedder"), kSinusoids, d);
  text_embedder_ = std::make_unique<Mlp>(
      Mlp::TextProjection(condition.Sub("text_embedder"), options_.in, d, Mlp::Activation::kSilu));
  proj_in_ = scope.Linear("proj_in", options_.in, d);
  std::vector<WeightGroup*> groups =
      component.weights().AddGroups(absl::StrCat(part, ".refiner_blocks"), options_.layers, part);
  for (int i = 0; i < options_.layers; ++i) {
    const WeightScope layer =
        scope.Sub("token_refiner").Sub("refiner_blocks", i).In(*groups[static_cast<size_t>(i)]);
    const WeightScope attention = layer.Sub("attn");
    Block& block = blocks_.emplace_back();
    block.norm1 = layer.Sub("norm1").WithBias({d});
    block.norm2 = layer.Sub("norm2").WithBias({d});
    block.q = attention.Linear("to_q", d, d);
    block.k = attention.Linear("to_k", d, d);
    block.v = attention.Linear("to_v", d, d);
    block.out = attention.Linear("to_out.0", d, d);
    block.gates = layer.Sub("norm_out").Linear("linear", d, 2 * d);
    block.feed_forward = std::make_unique<Mlp>(
        Mlp::FeedForward(layer.Sub("ff"), d, {.activation = Mlp::Activation::kSilu}));
  }
  stack_ = std::make_unique<BlockStack>(component.residency(), std::move(groups));
}

// condition: [T, D]; hidden: [T, L, D], L > 0
void TokenRefiner::RunBlock(const Block& block, const at::Tensor& condition, at::Tensor& hidden,
                            const RunContext& context) const {
  const TokenSpans all = {{0, hidden.size(1), 0}};
  // Of attention and of the feed-forward: [T, 2, D].
  const at::Tensor gates = block.gates.Apply(condition).unflatten(1, {2, options_.width});
  const auto gate = [&gates](int64_t which) { return gates.narrow(1, which, 1).contiguous(); };
  at::Tensor seen;
  {
    const at::Tensor normed = Normed(hidden, block.norm1);
    const at::Tensor q = block.q.Apply(normed), k = block.k.Apply(normed),
                     v = block.v.Apply(normed);
    seen = block.out.Apply(Attention(q, k, v, options_.heads));
  }
  AddGated(hidden, seen, gate(0), all);
  seen = block.feed_forward->Forward(Normed(hidden, block.norm2), context.chunk_feed_forward);
  AddGated(hidden, seen, gate(1), all);
}

std::vector<at::Tensor> TokenRefiner::Refine(const std::vector<at::Tensor>& texts,
                                             const at::Tensor& times,
                                             const RunContext& context) const {
  const int64_t steps = times.size(0);
  std::vector<at::Tensor> conditions;  // of each row, [T, D]
  Streams rows;
  for (const at::Tensor& text : texts) {
    const int64_t length = text.size(1);
    rows.push_back(at::empty({steps, length, options_.width}, text.options()));
    conditions.emplace_back();
    if (length == 0) continue;
    rows.back().copy_(proj_in_.Apply(text));
    const at::Tensor time = time_embedder_->Forward(times, text.scalar_type());
    conditions.back() = at::silu(time + text_embedder_->Forward(Mean(text)));
  }
  stack_->Run(context, rows, [&](int i, Streams& between) {
    for (size_t row = 0; row < between.size(); ++row) {
      if (!conditions[row].defined()) continue;
      RunBlock(blocks_[static_cast<size_t>(i)], conditions[row], between[row], context);
    }
  });
  return rows;
}

}  // namespace kino::engine
