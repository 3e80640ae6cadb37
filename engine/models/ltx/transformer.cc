#include "engine/models/ltx/transformer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/core/status.h"
#include "engine/core/status_bridge.h"
#include "engine/ops/attention.h"

namespace kino::engine {
namespace {

constexpr double kQkNormEps = 1e-5;
constexpr double kNormOutEps = 1e-6;
constexpr double kTheta = 10000.0;
constexpr int64_t kTimestepSinusoids = 256;
// Positions are fractions of this many seconds and pixels (LTXVideoRotaryPosEmbed's
// base_num_frames, base_height, base_width).
constexpr double kBaseFrames = 20;
constexpr double kBasePixels = 2048;
constexpr char kPreparePrefix[] = "prepare";

}  // namespace

LtxTransformer::LtxTransformer(const LtxTransformerConfig& config, const ComponentFiles& files,
                               c10::ScalarType dtype, c10::Device device)
    : Component(files, dtype, device), config_(config) {
  const int64_t d = config_.width();
  WeightGroup& prepare = weights().AddGroup(kPreparePrefix, kPreparePrefix);
  const WeightScope prepared(weights(), prepare);
  time_embedder_ = std::make_unique<TimestepEmbedder>(
      prepared.Sub("time_embed.emb.timestep_embedder"), kTimestepSinusoids, d);
  time_linear_ = prepared.Linear("time_embed.linear", d, 6 * d);
  caption_projection_ = std::make_unique<Mlp>(
      Mlp::TextProjection(prepared.Sub("caption_projection"), config_.caption_channels, d));

  const bool bias = config_.attention_bias;
  const bool out_bias = config_.attention_out_bias;
  std::vector<WeightGroup*> prepare_groups = weights().AddGroups(
      absl::StrCat(kPreparePrefix, ".transformer_blocks"), config_.num_layers, kPreparePrefix);
  std::vector<WeightGroup*> groups = weights().AddGroups("transformer_blocks", config_.num_layers);
  for (int i = 0; i < config_.num_layers; ++i) {
    WeightGroup& group = *groups[static_cast<size_t>(i)];
    WeightGroup& prepare_group = *prepare_groups[static_cast<size_t>(i)];
    const WeightScope block = WeightScope(weights(), group).Sub("transformer_blocks", i);
    const WeightScope self = block.Sub("attn1");
    const WeightScope cross = block.Sub("attn2");
    const WeightScope cross_prepare = cross.In(prepare_group);
    blocks_.push_back({.scale_shift_table = block.Get("scale_shift_table", {6, d}),
                       .self = {.q = self.Linear("to_q", d, d, bias),
                                .k = self.Linear("to_k", d, d, bias),
                                .v = self.Linear("to_v", d, d, bias),
                                .out = self.Linear("to_out.0", d, d, out_bias),
                                .norm_q = self.Get("norm_q.weight", {d}),
                                .norm_k = self.Get("norm_k.weight", {d})},
                       .cross = {.q = cross.Linear("to_q", d, d, bias),
                                 .out = cross.Linear("to_out.0", d, d, out_bias),
                                 .norm_q = cross.Get("norm_q.weight", {d}),
                                 .k = cross_prepare.Linear("to_k", d, d, bias),
                                 .v = cross_prepare.Linear("to_v", d, d, bias),
                                 .norm_k = cross_prepare.Get("norm_k.weight", {d})},
                       .feed_forward = Mlp::FeedForward(block.Sub("ff"), d, {})});
  }
  // What comes before the blocks and behind them is little: it moves with the first and the last.
  const WeightScope first(weights(), *groups.front()), last(weights(), *groups.back());
  proj_in_ = first.Linear("proj_in", config_.in_channels, d);
  proj_out_ = last.Linear("proj_out", d, config_.out_channels);
  scale_shift_table_ = last.Get("scale_shift_table", {2, d});
  prepare_stack_ = std::make_unique<BlockStack>(residency(), std::move(prepare_groups));
  stack_ = std::make_unique<BlockStack>(residency(), std::move(groups));
}

bool LtxTransformer::OwnedByPrepare(const std::string& group) const {
  return absl::StartsWith(group, kPreparePrefix);
}

RotaryTable LtxTransformer::MakeRotaryTable(const at::Tensor& positions) const {
  const at::TensorOptions options = positions.options();
  const at::Tensor fractions =
      positions / at::tensor({kBaseFrames, kBasePixels, kBasePixels}, options);
  // Frequencies span the whole width, not one head; what is left of width / 6 stands still, at the
  // front.
  const int64_t d = config_.width();
  at::Tensor frequencies = at::pow(kTheta, at::linspace(0.0, 1.0, d / 6, options));
  frequencies = frequencies * M_PI / 2.0;
  const at::Tensor angles = (frequencies * (fractions.unsqueeze(2) * 2 - 1))
                                .transpose(1, 2)
                                .flatten(1);  // [S, D / 6 * 3]
  const int64_t still = d % 6 / 2;
  const int64_t tokens = positions.size(0);
  return {.cos = at::cat({at::ones({tokens, still}, options), angles.cos()}, 1).contiguous(),
          .sin = at::cat({at::zeros({tokens, still}, options), angles.sin()}, 1).contiguous()};
}

LtxTransformer::Prepared LtxTransformer::Prepare(const at::Tensor& text,
                                                 const at::Tensor& positions,
                                                 const std::vector<float>& timesteps,
                                                 const Prepared* like,
                                                 const RunContext& context) const {
  Prepared prepared;
  if (like != nullptr) {
    prepared.rotary = like->rotary;
    prepared.modulation = like->modulation;
    prepared.embedded_timestep = like->embedded_timestep;
  } else {
    prepared.rotary = MakeRotaryTable(positions);
    const at::Tensor t = at::tensor(timesteps, at::TensorOptions().dtype(at::kFloat)).to(device());
    prepared.embedded_timestep = time_embedder_->Forward(t, dtype());
    prepared.modulation =
        time_linear_.Apply(at::silu(prepared.embedded_timestep)).unflatten(1, {6, config_.width()});
  }
  const at::Tensor caption = caption_projection_->Forward(text.to(dtype()));
  Streams none;
  prepare_stack_->Run(context, none, [&](int i, Streams&) {
    const CrossAttention& cross = blocks_[i].cross;
    const at::Tensor keys = cross.k.Apply(caption);
    prepared.keys.push_back(NormRotary(keys, cross.norm_k.get(), kQkNormEps));
    prepared.values.push_back(cross.v.Apply(caption));
  });
  return prepared;
}

void LtxTransformer::RunBlock(const Block& block, int index, absl::Span<const Prepared* const> rows,
                              const at::Tensor& modulation, const TokenSpans& spans,
                              at::Tensor& hidden, const RunContext& context) const {
  const int64_t heads = config_.num_attention_heads;
  // [6, timesteps, D]: shift, scale and gate of attention, then of the feed-forward.
  const at::Tensor ada =
      (block.scale_shift_table.get()->unsqueeze(1) + modulation.transpose(0, 1)).contiguous();
  const auto part = [&ada](int i) { return ada.select(0, i); };
  const NormStyle norm = {.kind = NormKind::kRms, .eps = config_.norm_eps};

  at::Tensor normed = NormModulate(hidden, norm, part(0), part(1), spans);
  at::Tensor q = block.self.q.Apply(normed);
  q = NormRotary(q, block.self.norm_q.get(), kQkNormEps, rows[0]->rotary);
  at::Tensor k = block.self.k.Apply(normed);
  k = NormRotary(k, block.self.norm_k.get(), kQkNormEps, rows[0]->rotary);
  at::Tensor attended = block.self.out.Apply(Attention(q, k, block.self.v.Apply(normed), heads));
  AddGated(hidden, attended, part(2), spans);

  q = block.cross.q.Apply(hidden);
  q = NormRotary(q, block.cross.norm_q.get(), kQkNormEps);
  std::vector<at::Tensor> parts;
  for (size_t row = 0; row < rows.size(); ++row) {
    // Prompts have their own lengths: without padding there is nothing to mask.
    parts.push_back(Attention(q.narrow(0, static_cast<int64_t>(row), 1), rows[row]->keys[index],
                              rows[row]->values[index], heads));
  }
  hidden.add_(block.cross.out.Apply(parts.size() == 1 ? parts[0] : at::cat(parts, 0)));

  normed = NormModulate(hidden, norm, part(3), part(4), spans);
  at::Tensor out = block.feed_forward.Forward(normed, context.chunk_feed_forward);
  AddGated(hidden, out, part(5), spans);
}

at::Tensor LtxTransformer::Forward(absl::Span<const Prepared* const> rows, const TokenSpans& spans,
                                   const at::Tensor& latents, const RunContext& context) const {
  TORCH_CHECK(static_cast<int64_t>(rows.size()) == latents.size(0), rows.size(),
              " prepared rows for latents ", latents.sizes());
  // Only the timesteps this step uses, renumbered.
  std::vector<int64_t> used;
  TokenSpans local = spans;
  for (TokenSpan& span : local) {
    const auto found = std::find(used.begin(), used.end(), span.row);
    if (found == used.end()) used.push_back(span.row);
    span.row = std::find(used.begin(), used.end(), span.row) - used.begin();
  }
  // Without an index tensor, which would be copied to the device.
  const auto pick = [&used](const at::Tensor& table) {
    if (used.size() == 1) return table.narrow(0, used[0], 1);
    std::vector<at::Tensor> picked;
    for (const int64_t row : used) picked.push_back(table.narrow(0, row, 1));
    return at::cat(picked);
  };
  const at::Tensor modulation = pick(rows[0]->modulation);
  const at::Tensor embedded = pick(rows[0]->embedded_timestep);

  Streams streams = {proj_in_.Apply(latents.to(dtype()))};
  stack_->Run(context, streams, [&](int i, Streams& stream) {
    RunBlock(blocks_[i], i, rows, modulation, local, stream[0], context);
  });
  const at::Tensor modulated = scale_shift_table_.get()->unsqueeze(1) + embedded;
  return proj_out_.Apply(NormModulate(streams[0], {.kind = NormKind::kLayer, .eps = kNormOutEps},
                                      modulated[0], modulated[1], local));
}

}  // namespace kino::engine
