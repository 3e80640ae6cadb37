#include "engine/models/allegro/transformer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tensor.h>

#include "absl/strings/str_cat.h"
#include "engine/models/common/latents.h"
#include "engine/ops/attention.h"
#include "engine/ops/linear.h"
#include "engine/ops/norm_modulate.h"

namespace kino::engine {
namespace {

constexpr double kNormOutEps = 1e-6;
constexpr int64_t kAxes = 3;
constexpr int64_t kTimestepSinusoids = 256;
constexpr char kPrepare[] = "prepare";
// Parts of a block's modulation.
enum { kShift, kScale, kGate, kMlpShift, kMlpScale, kMlpGate, kParts };

}  // namespace

AllegroTransformer::AllegroTransformer(const AllegroTransformerConfig& config,
                                       const ComponentFiles& files, c10::ScalarType dtype,
                                       c10::Device device)
    : Component(files, dtype, device), config_(config) {
  const int64_t d = config_.width(), p = config_.patch_size, channels = config_.in_channels;
  const bool bias = config_.attention_bias;
  for (const char* pattern : {"pos_embed", "norm", "adaln_single"}) weights().SkipCasting(pattern);
  const WeightScope prepare(weights(), weights().AddGroup(kPrepare, kPrepare));
  const WeightScope time = prepare.Sub("adaln_single");
  time_embedder_ =
      std::make_unique<TimestepEmbedder>(time.Sub("emb.timestep_embedder"), kTimestepSinusoids, d);
  time_linear_ = time.Linear("linear", d, kParts * d);
  caption_projection_ = std::make_unique<Mlp>(
      Mlp::TextProjection(prepare.Sub("caption_projection"), config_.caption_channels, d));

  std::vector<WeightGroup*> prepare_groups = weights().AddGroups(
      absl::StrCat(kPrepare, ".transformer_blocks"), config_.num_layers, kPrepare);
  std::vector<WeightGroup*> groups = weights().AddGroups("transformer_blocks", config_.num_layers);
  for (int i = 0; i < config_.num_layers; ++i) {
    WeightGroup& group = *groups[static_cast<size_t>(i)];
    const WeightScope block = WeightScope(weights(), group).Sub("transformer_blocks", i);
    const WeightScope self = block.Sub("attn1"), cross = block.Sub("attn2");
    const auto attention = [&](const WeightScope& scope, const WeightScope& keys) {
      return AttentionLayers{.q = scope.Linear("to_q", d, d, bias),
                             .k = keys.Linear("to_k", d, d, bias),
                             .v = keys.Linear("to_v", d, d, bias),
                             .out = scope.Linear("to_out.0", d, d)};
    };
    blocks_.push_back({.scale_shift_table = block.Get("scale_shift_table", {kParts, d}),
                       .self = attention(self, self),
                       .cross = attention(cross, cross.In(*prepare_groups[static_cast<size_t>(i)])),
                       .feed_forward = Mlp::FeedForward(block.Sub("ff"), d, {})});
  }
  // What comes before the blocks and behind them is little: it moves with the first and the last.
  const WeightScope first(weights(), *groups.front()), last(weights(), *groups.back());
  const WeightScope patch = first.Sub("pos_embed").Sub("proj");
  patch_weight_ = patch.Get("weight", {d, channels, p, p}, LayerKind::kConvolution);
  patch_bias_ = patch.Get("bias", {d}, LayerKind::kConvolution);
  proj_out_ = last.Linear("proj_out", d, p * p * channels);
  scale_shift_table_ = last.Get("scale_shift_table", {2, d});
  prepare_stack_ = std::make_unique<BlockStack>(residency(), std::move(prepare_groups));
  stack_ = std::make_unique<BlockStack>(residency(), std::move(groups));
}

AllegroTransformer::Prepared AllegroTransformer::Prepare(const std::vector<at::Tensor>& texts,
                                                         const LatentGrid& grid,
                                                         const std::vector<float>& timesteps,
                                                         const RunContext& context) const {
  Prepared prepared;
  prepared.rotary = HalfRotaryTable(
      {grid.frames, grid.height / config_.patch_size, grid.width / config_.patch_size},
      {config_.interpolation_scale_t, config_.interpolation_scale_h, config_.interpolation_scale_w},
      config_.attention_head_dim, device());
  const at::Tensor t = at::tensor(timesteps, at::TensorOptions().dtype(at::kFloat)).to(device());
  prepared.embedded_timestep = time_embedder_->Forward(t, dtype());
  prepared.modulation = time_linear_.Apply(at::silu(prepared.embedded_timestep))
                            .unflatten(1, {kParts, config_.width()});
  std::vector<at::Tensor> captions;
  for (const at::Tensor& text : texts)
    captions.push_back(caption_projection_->Forward(text.to(dtype())));
  Streams none;
  prepare_stack_->Run(context, none, [&](int i, Streams&) {
    const AttentionLayers& cross = blocks_[static_cast<size_t>(i)].cross;
    const auto of_rows = [&captions](const LinearWeight& layer) {
      std::vector<at::Tensor> rows;
      for (const at::Tensor& caption : captions) rows.push_back(layer.Apply(caption));
      return rows;
    };
    prepared.keys.push_back(of_rows(cross.k));
    prepared.values.push_back(of_rows(cross.v));
  });
  return prepared;
}

void AllegroTransformer::RunBlock(int index, const Prepared& prepared, int step, at::Tensor& hidden,
                                  const RunContext& context) const {
  const Block& block = blocks_[static_cast<size_t>(index)];
  const int64_t heads = config_.num_attention_heads;
  const NormStyle norm = {.kind = NormKind::kLayer, .eps = config_.norm_eps};
  const TokenSpans all = {{0, hidden.size(1), 0}};
  // [6, 1, D]
  const at::Tensor parts =
      (*block.scale_shift_table.get() + prepared.modulation[step]).unsqueeze(1);

  at::Tensor normed = NormModulate(hidden, norm, parts[kShift], parts[kScale], all);
  at::Tensor q = HalfRotary(block.self.q.Apply(normed), kAxes, prepared.rotary);
  at::Tensor k = HalfRotary(block.self.k.Apply(normed), kAxes, prepared.rotary);
  at::Tensor attended = block.self.out.Apply(Attention(q, k, block.self.v.Apply(normed), heads));
  AddGated(hidden, attended, parts[kGate], all);

  q = block.cross.q.Apply(hidden);
  const size_t at = static_cast<size_t>(index);
  hidden.add_(
      block.cross.out.Apply(AttentionByRow(q, prepared.keys[at], prepared.values[at], heads)));

  normed = NormModulate(hidden, norm, parts[kMlpShift], parts[kMlpScale], all);
  at::Tensor inner = block.feed_forward.Forward(normed, context.chunk_feed_forward);
  AddGated(hidden, inner, parts[kMlpGate], all);
}

at::Tensor AllegroTransformer::Forward(const Prepared& prepared, int step,
                                       const at::Tensor& latents, const RunContext& context) const {
  const at::Tensor patches = PackPatches(latents.to(dtype()), config_.patch_size);
  Streams streams = {Linear(patches, patch_weight_.get()->flatten(1), patch_bias_.get())};
  stack_->Run(context, streams,
              [&](int i, Streams& between) { RunBlock(i, prepared, step, between[0], context); });
  const at::Tensor parts =
      (*scale_shift_table_.get() + prepared.embedded_timestep[step]).unsqueeze(1);  // [2, 1, D]
  const at::Tensor out =
      proj_out_.Apply(NormModulate(streams[0], {.kind = NormKind::kLayer, .eps = kNormOutEps},
                                   parts[0], parts[1], {{0, streams[0].size(1), 0}}));
  return UnpackPatches(out, latents.sizes(), config_.patch_size);
}

}  // namespace kino::engine
