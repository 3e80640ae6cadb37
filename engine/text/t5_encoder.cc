#include "engine/text/t5_encoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/isinf.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "engine/ops/attention.h"
#include "engine/text/text_layers.h"

namespace kino::engine {
at::Tensor ClampHalf(at::Tensor hidden) {
  if (hidden.scalar_type() != at::kHalf) return hidden;
  // A tensor, so that the host does not wait for it.
  const at::Tensor limit = 65504.0 - at::isinf(hidden).any().to(at::kFloat) * 1000.0;
  return hidden.clamp_(-limit, limit);
}

T5Encoder::T5Encoder(const T5EncoderConfig& config, const ComponentFiles& files,
                     c10::ScalarType dtype, c10::Device device)
    : Component(files, dtype, device), config_(config) {
  const int64_t d = config_.d_model;
  const int64_t inner = int64_t{config_.num_heads} * config_.d_kv;
  // The relative position bias is read before the first block runs.
  WeightGroup& embeddings = weights().AddGroup("embeddings");
  const WeightScope root(weights(), embeddings);
  embedding_ = root.GetAny({"encoder.embed_tokens.weight", "shared.weight"},
                           {config_.vocab_size, d}, LayerKind::kEmbedding);
  weights().AllowUnexpected("decoder.");  // A full T5 checkpoint serves as well.
  weights().AllowUnexpected("lm_head.");
  // transformers keeps it from quantizers (T5PreTrainedModel._keep_in_fp32_modules).
  weights().SkipQuantizing("DenseReluDense.wo");
  std::vector<WeightGroup*> groups = weights().AddGroups("encoder.block", config_.num_layers);
  for (int i = 0; i < config_.num_layers; ++i) {
    WeightGroup& group = *groups[static_cast<size_t>(i)];
    const WeightScope scope = root.Sub("encoder.block", i).In(group);
    const WeightScope attention = scope.Sub("layer.0.SelfAttention");
    const WeightScope feed_forward = scope.Sub("layer.1.DenseReluDense");
    const WeightScope wo = dtype == at::kHalf ? feed_forward.WithDType(at::kFloat) : feed_forward;
    blocks_.push_back({.attention_norm = scope.Get("layer.0.layer_norm.weight", {d}),
                       .feed_forward_norm = scope.Get("layer.1.layer_norm.weight", {d}),
                       .q = attention.Linear("q", d, inner, /*bias=*/false),
                       .k = attention.Linear("k", d, inner, false),
                       .v = attention.Linear("v", d, inner, false),
                       .o = attention.Linear("o", inner, d, false),
                       .wi_0 = feed_forward.Linear("wi_0", d, config_.d_ff, false),
                       .wi_1 = feed_forward.Linear("wi_1", d, config_.d_ff, false),
                       .wo = wo.Linear("wo", config_.d_ff, d, false)});
    if (i == 0) {
      position_bias_ = attention.In(embeddings)
                           .Get("relative_attention_bias.weight",
                                {config_.relative_attention_num_buckets, config_.num_heads},
                                LayerKind::kEmbedding);
    }
  }
  final_norm_ = root.In(*groups.back()).Get("encoder.final_layer_norm.weight", {d});
  stack_ = std::make_unique<BlockStack>(residency(), std::move(groups));
}

at::Tensor T5Encoder::PositionBias(int64_t length) const {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device());
  const at::Tensor positions = at::arange(length, options);
  const at::Tensor relative = positions.unsqueeze(0) - positions.unsqueeze(1);
  // Half the buckets for each direction; half of those exact, the others logarithmic (computed in
  // float32, truncated).
  const int64_t buckets = config_.relative_attention_num_buckets / 2;
  const int64_t exact = buckets / 2;
  const at::Tensor distance = relative.abs();
  const double log_range = std::log(static_cast<double>(config_.relative_attention_max_distance) /
                                    static_cast<double>(exact));
  at::Tensor far = (distance.to(at::kFloat) / static_cast<double>(exact)).log_().div_(log_range);
  far = far.mul_(static_cast<double>(buckets - exact))
            .to(at::kLong)
            .add_(exact)
            .clamp_max_(buckets - 1);
  const at::Tensor bucket =
      (relative > 0).to(at::kLong).mul_(buckets) + at::where(distance < exact, distance, far);
  return at::embedding(position_bias_.get(), bucket).permute({2, 0, 1}).unsqueeze(0).contiguous();
}

at::Tensor T5Encoder::RunBlock(const Block& block, at::Tensor hidden,
                               const at::Tensor& bias) const {
  const AttentionContext unscaled{.scale = 1.0};
  at::Tensor normed = RmsNorm(hidden, block.attention_norm, config_.layer_norm_epsilon);
  hidden =
      hidden + block.o.Apply(Attention(block.q.Apply(normed), block.k.Apply(normed),
                                       block.v.Apply(normed), config_.num_heads, unscaled, bias));
  hidden = ClampHalf(hidden);
  normed = RmsNorm(hidden, block.feed_forward_norm, config_.layer_norm_epsilon);
  at::Tensor gate = block.wi_0.Apply(normed);
  at::Tensor inner = at::gelu_(gate, "tanh").mul_(block.wi_1.Apply(normed));
  if (dtype() == at::kHalf) inner = inner.to(at::kFloat);
  return ClampHalf(hidden + block.wo.Apply(inner));
}

std::vector<at::Tensor> T5Encoder::Forward(const std::vector<at::Tensor>& ids,
                                           const RunContext& context) const {
  Streams hidden;
  int64_t longest = 0;
  for (const at::Tensor& prompt : ids) {
    longest = std::max(longest, prompt.size(1));
    hidden.push_back(EmbedTokens(*this, embedding_, config_.vocab_size, prompt));
  }
  if (ids.empty()) return hidden;
  // A shorter prompt's biases are the corner of a longer one's.
  const at::Tensor bias = PositionBias(longest);
  std::map<int64_t, at::Tensor> biases;
  for (const at::Tensor& states : hidden) {
    const int64_t length = states.size(1);
    biases.try_emplace(length, bias.narrow(2, 0, length).narrow(3, 0, length).contiguous());
  }
  stack_->Run(context, hidden, [&](int i, Streams& prompts) {
    for (at::Tensor& states : prompts) {
      const at::Tensor& own = biases.at(states.size(1));
      states = RunBlock(blocks_[static_cast<size_t>(i)], std::move(states), own);
    }
  });
  for (at::Tensor& states : hidden)
    states = RmsNorm(states, final_norm_, config_.layer_norm_epsilon);
  return hidden;
}

}  // namespace kino::engine
