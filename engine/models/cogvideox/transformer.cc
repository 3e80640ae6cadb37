#include "engine/models/cogvideox/transformer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "absl/strings/str_cat.h"
#include "engine/nn/grid_positions.h"
#include "engine/ops/attention.h"
#include "engine/ops/linear.h"

namespace kino::engine {
namespace {

constexpr double kQkNormEps = 1e-6;
constexpr double kOfs = 2.0;  // what every pipeline passes
constexpr char kPrepare[] = "prepare";
// Parts of a norm's modulation.
enum { kShift, kScale, kGate, kParts };

}  // namespace

CogVideoXTransformer::CogVideoXTransformer(const CogVideoXTransformerConfig& config,
                                           const ComponentFiles& files, c10::ScalarType dtype,
                                           c10::Device device)
    : Component(files, dtype, device), config_(config) {
  const int64_t d = config_.width(), head = config_.attention_head_dim, p = config_.patch_size,
                time = config_.time_embed_dim;
  const int64_t patch = config_.in_channels * p * p * config_.patch_frames();
  for (const char* pattern : {"patch_embed", "norm"}) weights().SkipCasting(pattern);
  const WeightScope prepare(weights(), weights().AddGroup(kPrepare, kPrepare));
  time_embedder_ = std::make_unique<TimestepEmbedder>(prepare.Sub("time_embedding"), d, time);
  if (config_.ofs_embed_dim > 0) {
    ofs_embedder_ = std::make_unique<TimestepEmbedder>(prepare.Sub("ofs_embedding"), time, time);
  }
  text_projection_ = prepare.Sub("patch_embed").Linear("text_proj", config_.text_embed_dim, d);
  out_modulation_ = prepare.Sub("norm_out").Linear("linear", time, 2 * d);
  if (config_.use_learned_positional_embeddings) {
    const int64_t tokens = ((config_.sample_frames - 1) / config_.temporal_compression_ratio + 1) *
                           (config_.sample_height / p) * (config_.sample_width / p);
    positions_ = prepare.Sub("patch_embed")
                     .Get("pos_embedding", {1, config_.max_text_seq_length + tokens, d});
  }
  std::vector<WeightGroup*> prepare_groups = weights().AddGroups(
      absl::StrCat(kPrepare, ".transformer_blocks"), config_.num_layers, kPrepare);
  std::vector<WeightGroup*> groups = weights().AddGroups("transformer_blocks", config_.num_layers);
  for (int i = 0; i < config_.num_layers; ++i) {
    WeightGroup& group = *groups[static_cast<size_t>(i)];
    const WeightScope scope = WeightScope(weights(), group).Sub("transformer_blocks", i);
    const WeightScope attention = scope.Sub("attn1");
    Block& block = blocks_.emplace_back();
    for (const size_t which : {0, 1}) {
      const WeightScope of_norm = scope.Sub(which == 0 ? "norm1" : "norm2");
      block.norms[which] = of_norm.Sub("norm").WithBias({d});
      block.modulations[which] = of_norm.In(*prepare_groups[static_cast<size_t>(i)])
                                     .Linear("linear", time, 2 * kParts * d);
    }
    block.q = attention.Linear("to_q", d, d, config_.attention_bias);
    block.k = attention.Linear("to_k", d, d, config_.attention_bias);
    block.v = attention.Linear("to_v", d, d, config_.attention_bias);
    block.out = attention.Linear("to_out.0", d, d);
    block.norm_q = attention.Sub("norm_q").WithBias({head});
    block.norm_k = attention.Sub("norm_k").WithBias({head});
    block.feed_forward = std::make_unique<Mlp>(Mlp::FeedForward(scope.Sub("ff"), d, {}));
  }
  // What comes before the blocks and behind them is little: it moves with the first and the last.
  const WeightScope first = WeightScope(weights(), *groups.front()).Sub("patch_embed");
  if (config_.patch_size_t > 0) {
    // It has a bias whatever patch_bias says.
    patch_linear_ = first.Linear("proj", patch, d);
  } else {
    const WeightScope proj = first.Sub("proj");
    patch_weight_ = proj.Get("weight", {d, config_.in_channels, p, p}, LayerKind::kConvolution);
    if (config_.patch_bias) patch_bias_ = proj.Get("bias", {d}, LayerKind::kConvolution);
  }
  const WeightScope last(weights(), *groups.back());
  norm_final_ = last.Sub("norm_final").WithBias({d});
  norm_out_ = last.Sub("norm_out").Sub("norm").WithBias({d});
  proj_out_ = last.Linear("proj_out", d, config_.out_channels * p * p * config_.patch_frames());
  prepare_stack_ = std::make_unique<BlockStack>(residency(), std::move(prepare_groups));
  stack_ = std::make_unique<BlockStack>(residency(), std::move(groups));
}

RotaryTable CogVideoXTransformer::MakeRotaryTable(const LatentGrid& grid) const {
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device());
  const int64_t p = config_.patch_size, height = grid.height / p, width = grid.width / p,
                frames = grid.frames / config_.patch_frames(), head = config_.attention_head_dim;
  at::Tensor t = at::arange(frames, options), h = at::arange(height, options),
             w = at::arange(width, options);
  if (config_.patch_size_t == 0) {
    // Spread over the positions that the model was trained with.
    const GridCrop crop(height, width, config_.sample_height / p, config_.sample_width / p);
    t = SpreadPositions(0, static_cast<double>(frames), frames, device());
    h = SpreadPositions(crop.top, crop.bottom, height, device());
    w = SpreadPositions(crop.left, crop.right, width, device());
  }
  const at::Tensor angles = OverGrid(RotaryAngles(t, head / 4), RotaryAngles(h, head / 8 * 3),
                                     RotaryAngles(w, head / 8 * 3));
  return {.cos = angles.cos(), .sin = angles.sin()};
}

at::Tensor CogVideoXTransformer::MakePositions(const LatentGrid& grid) const {
  const int64_t p = config_.patch_size, d = config_.width();
  const bool is_sample =
      grid.height == config_.sample_height && grid.width == config_.sample_width &&
      (grid.frames - 1) * config_.temporal_compression_ratio + 1 == config_.sample_frames;
  if (positions_ && is_sample) return positions_.get()->squeeze(0).clone();
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device());
  const auto axis = [&](int64_t count, double scale, int64_t dim) {
    return SinCosPositions(at::arange(count, options).div_(scale), dim);
  };
  const double scale = config_.spatial_interpolation_scale;
  const at::Tensor video =
      OverGrid(axis(grid.frames, config_.temporal_interpolation_scale, d / 4),
               axis(grid.height / p, scale, 3 * d / 8), axis(grid.width / p, scale, 3 * d / 8),
               /*column_first=*/true);
  return at::cat({at::zeros({config_.max_text_seq_length, d}, video.options()), video});
}

CogVideoXTransformer::Prepared CogVideoXTransformer::Prepare(const std::vector<at::Tensor>& texts,
                                                             const LatentGrid& grid,
                                                             const std::vector<float>& timesteps,
                                                             const RunContext& context) const {
  Prepared prepared;
  prepared.text = text_projection_.Apply(at::cat(texts).to(dtype()));
  const int64_t p = config_.patch_size, text = prepared.text.size(1);
  const int64_t video = grid.frames / config_.patch_frames() * (grid.height / p) * (grid.width / p);
  prepared.spans = {{0, text, 1}, {text, text + video, 0}};
  if (config_.adds_positions()) {
    const at::Tensor all = MakePositions(grid).to(dtype());
    TORCH_CHECK(all.size(0) == text + video, "positions of ", all.size(0), " tokens, expected ",
                text + video);
    prepared.text.add_(all.narrow(0, 0, text));
    prepared.positions = all.narrow(0, text, video);
  }
  if (config_.use_rotary_positional_embeddings) {
    prepared.rotary = MakeRotaryTable(grid);
    prepared.rotary.first = text;
  }
  const at::Tensor times =
      at::tensor(timesteps, at::TensorOptions().dtype(at::kFloat)).to(device());
  at::Tensor condition = time_embedder_->Forward(times, dtype());
  if (ofs_embedder_ != nullptr)
    condition.add_(ofs_embedder_->Forward(at::full({1}, kOfs, times.options()), dtype()));
  at::silu_(condition);
  const int64_t steps = times.size(0), d = config_.width();
  Streams none;
  prepare_stack_->Run(context, none, [&](int i, Streams&) {
    std::array<at::Tensor, 2>& of_block = prepared.modulation.emplace_back();
    for (const size_t which : {0, 1}) {
      // The video's parts, then the text's.
      of_block[which] = blocks_[static_cast<size_t>(i)]
                            .modulations[which]
                            .Apply(condition)
                            .view({steps, 2, kParts, d})
                            .transpose(1, 2)
                            .contiguous();
    }
  });
  prepared.out_modulation = out_modulation_.Apply(condition).view({steps, 2, 1, d});
  return prepared;
}

void CogVideoXTransformer::RunBlock(int index, const Prepared& prepared, int step,
                                    at::Tensor& tokens, const RunContext& context) const {
  const Block& block = blocks_[static_cast<size_t>(index)];
  const std::array<at::Tensor, 2>& modulation = prepared.modulation[static_cast<size_t>(index)];
  const NormStyle style = {.kind = NormKind::kLayer, .eps = config_.norm_eps};
  const auto modulated = [&](size_t which) {
    const at::Tensor parts = modulation[which][step];
    return NormModulate(
        tokens, style, parts[kShift], parts[kScale], prepared.spans,
        {.weight = block.norms[which].weight.get(), .bias = block.norms[which].bias.get()});
  };
  at::Tensor normed = modulated(0);
  // One layer's weights at a time: each is in an expression of its own.
  at::Tensor q = block.q.Apply(normed);
  q = NormRotary(std::move(q), block.norm_q.weight.get(), kQkNormEps, prepared.rotary,
                 block.norm_q.bias.get());
  at::Tensor k = block.k.Apply(normed);
  k = NormRotary(std::move(k), block.norm_k.weight.get(), kQkNormEps, prepared.rotary,
                 block.norm_k.bias.get());
  at::Tensor v = block.v.Apply(normed);
  normed.reset();
  at::Tensor attended = Attention(q, k, v, config_.num_attention_heads);
  for (at::Tensor* used : {&q, &k, &v}) used->reset();
  attended = block.out.Apply(attended);
  AddGated(tokens, attended, modulation[0][step][kGate], prepared.spans);
  attended = block.feed_forward->Forward(modulated(1), context.chunk_feed_forward);
  AddGated(tokens, attended, modulation[1][step][kGate], prepared.spans);
}

at::Tensor CogVideoXTransformer::Forward(const Prepared& prepared, int step,
                                         const at::Tensor& latents,
                                         const RunContext& context) const {
  const int64_t p = config_.patch_size, pt = config_.patch_frames(), batch = latents.size(0),
                frames = latents.size(1) / pt, channels = latents.size(2),
                height = latents.size(3) / p, width = latents.size(4) / p;
  const at::Tensor patches = latents.to(dtype())
                                 .view({batch, frames, pt, channels, height, p, width, p})
                                 .permute({0, 1, 4, 6, 3, 2, 5, 7})
                                 .reshape({batch, frames * height * width, channels * pt * p * p});
  at::Tensor video = config_.patch_size_t > 0
                         ? patch_linear_.Apply(patches)
                         : Linear(patches, patch_weight_.get()->flatten(1),
                                  patch_bias_ ? *patch_bias_.get() : at::Tensor());
  if (prepared.positions.defined()) video.add_(prepared.positions);
  const int64_t text = prepared.text.size(1);
  Streams streams = {at::cat({prepared.text, video}, 1)};
  video.reset();
  stack_->Run(context, streams,
              [&](int i, Streams& between) { RunBlock(i, prepared, step, between[0], context); });
  at::Tensor hidden = streams[0].narrow(1, text, frames * height * width);
  streams.clear();
  hidden = at::layer_norm(hidden, {config_.width()}, *norm_final_.weight.get(),
                          *norm_final_.bias.get(), config_.norm_eps);
  const at::Tensor modulation = prepared.out_modulation[step];
  hidden = NormModulate(hidden, {.kind = NormKind::kLayer, .eps = config_.norm_eps},
                        modulation[kShift], modulation[kScale], {{0, hidden.size(1), 0}},
                        {.weight = norm_out_.weight.get(), .bias = norm_out_.bias.get()});
  return proj_out_.Apply(hidden)
      .view({batch, frames, height, width, config_.out_channels, pt, p, p})
      .permute({0, 1, 5, 4, 2, 6, 3, 7})
      .reshape({batch, frames * pt, config_.out_channels, height * p, width * p});
}

}  // namespace kino::engine
