#include "engine/models/mochi/transformer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/meshgrid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/status.h"
#include "engine/models/common/latents.h"
#include "engine/nn/modulation.h"
#include "engine/ops/attention.h"
#include "engine/ops/linear.h"
#include "engine/ops/norm_modulate.h"

namespace kino::engine {
namespace {

constexpr int64_t kPoolHeads = 8;
constexpr double kQkNormEps = 1e-5;
constexpr NormStyle kNorm = {.kind = NormKind::kRms, .eps = 1e-6, .rounding = Rounding::kOnce};
constexpr NormStyle kNormOut = {.kind = NormKind::kLayer, .eps = 1e-6};
// Positions are stretched so that a frame's area is that of a square of so many (MochiRoPE).
constexpr double kBaseSide = 192;
constexpr char kPrepare[] = "prepare";
// Parts of a block's modulation.
enum { kScale, kGate, kMlpScale, kMlpGate, kParts };

int64_t FeedForwardInner(int64_t dim) { return 4 * dim * 2 / 3; }

// Midpoints of `count` equal stretches from -extent / 2 to extent / 2.
at::Tensor Centers(double extent, int64_t count, const at::TensorOptions& options) {
  const at::Tensor edges = at::linspace(-extent / 2, extent / 2, count + 1, options);
  return (edges.narrow(0, 0, count) + edges.narrow(0, 1, count)) / 2;
}

}  // namespace

MochiTransformer::MochiTransformer(const MochiTransformerConfig& config,
                                   const ComponentFiles& files, c10::ScalarType dtype,
                                   c10::Device device)
    : Component(files, dtype, device), config_(config) {
  const int64_t d = config_.width(), w = config_.pooled_projection_dim, t = config_.text_embed_dim,
                head = config_.attention_head_dim, p = config_.patch_size,
                channels = config_.in_channels;
  for (const char* pattern : {"patch_embed", "norm"}) weights().SkipCasting(pattern);
  const WeightScope prepare(weights(), weights().AddGroup(kPrepare, kPrepare));
  const WeightScope time = prepare.Sub("time_embed");
  time_embedder_ =
      std::make_unique<TimestepEmbedder>(time.Sub("timestep_embedder"), config_.time_embed_dim, d);
  pool_kv_ = time.Sub("pooler").Linear("to_kv", t, 2 * t);
  pool_q_ = time.Sub("pooler").Linear("to_q", t, t);
  pool_out_ = time.Sub("pooler").Linear("to_out", t, d);
  caption_projection_ = time.Linear("caption_proj", t, w);
  out_modulation_ = prepare.Sub("norm_out").Linear("linear", d, 2 * d);
  frequencies_ = prepare.Get("pos_frequencies", {3, config_.num_attention_heads, head / 2});

  std::vector<WeightGroup*> prepare_groups = weights().AddGroups(
      absl::StrCat(kPrepare, ".transformer_blocks"), config_.num_layers, kPrepare);
  std::vector<WeightGroup*> groups = weights().AddGroups("transformer_blocks", config_.num_layers);
  const Mlp::Activation activation =
      config_.original_layout ? Mlp::Activation::kSwiGluGateFirst : Mlp::Activation::kSwiGlu;
  for (int i = 0; i < config_.num_layers; ++i) {
    const bool is_last = i + 1 == config_.num_layers;
    WeightGroup& group = *groups[static_cast<size_t>(i)];
    const WeightScope scope = WeightScope(weights(), group).Sub("transformer_blocks", i);
    const WeightScope modulation = scope.In(*prepare_groups[static_cast<size_t>(i)]);
    const WeightScope attention = scope.Sub("attn1");
    const auto feed_forward = [&](const char* name, int64_t dim) {
      return std::make_unique<Mlp>(Mlp::FeedForward(
          scope.Sub(name), dim,
          {.activation = activation, .inner = FeedForwardInner(dim), .bias = false}));
    };
    Block& block = blocks_.emplace_back();
    const auto projections = [&](JointProjections::Names names, int64_t in) {
      return JointProjections(attention, names,
                              {.in = in, .width = d, .head = head, .bias = false});
    };
    block.video = {.projections = projections(JointProjections::Names::kOwn, d),
                   .out = attention.Linear("to_out.0", d, d),
                   .feed_forward = feed_forward("ff", d),
                   .modulation = modulation.Sub("norm1").Linear("linear", d, kParts * d)};
    block.text = {
        .projections = projections(JointProjections::Names::kAdded, w),
        .out = is_last ? LinearWeight() : attention.Linear("to_add_out", d, w),
        .feed_forward = is_last ? nullptr : feed_forward("ff_context", w),
        .modulation = is_last ? modulation.Sub("norm1_context").Linear("linear_1", d, w)
                              : modulation.Sub("norm1_context").Linear("linear", d, kParts * w)};
  }
  // What comes before the blocks and behind them is little: it moves with the first and the last.
  const WeightScope patch = WeightScope(weights(), *groups.front()).Sub("patch_embed").Sub("proj");
  patch_weight_ = patch.Get("weight", {d, channels, p, p}, LayerKind::kConvolution);
  patch_bias_ = patch.Get("bias", {d}, LayerKind::kConvolution);
  proj_out_ = WeightScope(weights(), *groups.back()).Linear("proj_out", d, p * p * channels);
  prepare_stack_ = std::make_unique<BlockStack>(residency(), std::move(prepare_groups));
  stack_ = std::make_unique<BlockStack>(residency(), std::move(groups));
}

RotaryTable MochiTransformer::MakeRotaryTable(const MochiGrid& grid) const {
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device());
  const int64_t height = grid.height / config_.patch_size, width = grid.width / config_.patch_size;
  const double scale =
      std::sqrt(kBaseSide * kBaseSide / (static_cast<double>(height) * static_cast<double>(width)));
  const std::vector<at::Tensor> axes =
      at::meshgrid({at::arange(grid.frames, options),
                    Centers(static_cast<double>(height) * scale, height, options),
                    Centers(static_cast<double>(width) * scale, width, options)},
                   "ij");
  const at::Tensor positions =
      at::stack({axes[0].flatten(), axes[1].flatten(), axes[2].flatten()}, 1);  // [S, 3]
  const at::Tensor angles = positions.matmul(frequencies_.get()->to(at::kFloat).flatten(1));
  return {.cos = angles.cos(), .sin = angles.sin()};
}

// MochiAttentionPool: the mean token attends to itself and to all tokens. text: [1, L, t] -> [1, D]
at::Tensor MochiTransformer::PoolText(const at::Tensor& text) const {
  const int64_t count = text.size(1), width = text.size(2);
  at::Tensor mean = at::zeros({1, 1, width}, text.options());
  if (count > 0) {
    // The share of a token is rounded to the dtype before the sum.
    const at::Tensor share = at::full({1}, 1.0, text.options()) / static_cast<double>(count);
    mean = (text * share).sum(1, /*keepdim=*/true);
  }
  const at::Tensor kv = pool_kv_.Apply(at::cat({mean, text}, 1));
  const at::Tensor pooled = Attention(pool_q_.Apply(mean), kv.narrow(2, 0, width),
                                      kv.narrow(2, width, width), kPoolHeads);
  return pool_out_.Apply(pooled.squeeze(1));
}

MochiTransformer::Prepared MochiTransformer::Prepare(const std::vector<at::Tensor>& texts,
                                                     const MochiGrid& grid,
                                                     const std::vector<float>& timesteps,
                                                     const RunContext& context) const {
  const int64_t p = config_.patch_size;
  std::vector<int64_t> lengths;
  std::vector<at::Tensor> pooled, rows;
  for (const at::Tensor& text : texts) {
    lengths.push_back(text.size(1));
    rows.push_back(text.to(dtype()));
    pooled.push_back(PoolText(rows.back()));
  }
  Prepared prepared = {
      .layout = JointLayout(grid.frames * (grid.height / p) * (grid.width / p), lengths),
      .rotary = MakeRotaryTable(grid),
      .text = {},
      .video_modulation = {},
      .text_modulation = {},
      .out_modulation = {}};
  if (prepared.layout.text_tokens() > 0)
    prepared.text = caption_projection_.Apply(at::cat(rows, 1));
  // In the dtype of the latents, in which neighbouring timesteps may be one.
  const at::Tensor times = at::tensor(timesteps, at::TensorOptions().dtype(at::kFloat))
                               .to(device())
                               .to(dtype())
                               .to(at::kFloat);
  const at::Tensor conditions = at::silu(time_embedder_->Forward(times, dtype()).unsqueeze(1) +
                                         at::cat(pooled, 0).unsqueeze(0));  // [T, B, D]
  Streams none;
  prepare_stack_->Run(context, none, [&](int i, Streams&) {
    const Block& block = blocks_[static_cast<size_t>(i)];
    at::Tensor video = ByPart(block.video.modulation.Apply(conditions), kParts).unsqueeze(3);
    const bool is_last = block.text.feed_forward == nullptr;
    at::Tensor text = ByPart(block.text.modulation.Apply(conditions), is_last ? 1 : kParts);
    for (const int64_t gate : {kGate, kMlpGate}) {
      video.select(1, gate).tanh_();
      if (!is_last) text.select(1, gate).tanh_();
    }
    prepared.video_modulation.push_back(std::move(video));
    prepared.text_modulation.push_back(std::move(text));
  });
  prepared.out_modulation = ByPart(out_modulation_.Apply(conditions), 2).unsqueeze(3);
  return prepared;
}

void MochiTransformer::RunBlock(int index, const Prepared& prepared, int step, Streams& streams,
                                const RunContext& context) const {
  const Block& block = blocks_[static_cast<size_t>(index)];
  const at::Tensor modulation = prepared.video_modulation[static_cast<size_t>(index)][step];
  const at::Tensor text_modulation = prepared.text_modulation[static_cast<size_t>(index)][step];
  const JointLayout& layout = prepared.layout;
  at::Tensor& video = streams[0];
  at::Tensor& text = streams[1];
  const bool has_text = text.defined(), changes_text = has_text && block.text.feed_forward;
  const TokenSpans all = layout.VideoSpans(), by_row = layout.TextSpans();
  at::Tensor normed_text;
  if (has_text) normed_text = NormModulate(text, kNorm, {}, text_modulation[kScale], by_row);
  JointAttended attended = AttendJointly(
      layout, block.video.projections, NormModulate(video, kNorm, {}, modulation[kScale], all),
      block.text.projections, std::move(normed_text), prepared.rotary,
      {.heads = config_.num_attention_heads, .norm_eps = kQkNormEps, .wants_text = changes_text});

  const auto mix = [&](const Stream& stream, at::Tensor& hidden, at::Tensor& seen,
                       const at::Tensor& parts, const TokenSpans& spans) {
    seen = stream.out.Apply(seen);
    AddNormGated(hidden, seen, kNorm.eps, parts[kGate], spans);
    seen.reset();
    const at::Tensor inner = stream.feed_forward->Forward(
        NormModulate(hidden, kNorm, {}, parts[kMlpScale], spans), context.chunk_feed_forward);
    AddNormGated(hidden, inner, kNorm.eps, parts[kMlpGate], spans);
  };
  mix(block.video, video, attended.video, modulation, all);
  if (changes_text) mix(block.text, text, attended.text, text_modulation, by_row);
}

at::Tensor MochiTransformer::Forward(const Prepared& prepared, int step, const at::Tensor& latents,
                                     const RunContext& context) const {
  const at::Tensor patches = PackPatches(latents.to(dtype()), config_.patch_size);
  // The first block changes the text in place; Prepared keeps its own.
  Streams streams = {Linear(patches, patch_weight_.get()->flatten(1), patch_bias_.get()),
                     prepared.text.defined() ? prepared.text.clone() : at::Tensor()};
  stack_->Run(context, streams,
              [&](int i, Streams& between) { RunBlock(i, prepared, step, between, context); });
  const at::Tensor modulation = prepared.out_modulation[step];
  const int scale = config_.original_layout ? 1 : 0;
  const at::Tensor out =
      proj_out_.Apply(NormModulate(streams[0], kNormOut, modulation[1 - scale], modulation[scale],
                                   {{0, streams[0].size(1), 0}}));
  return UnpackPatches(out, latents.sizes(), config_.patch_size);
}

}  // namespace kino::engine
