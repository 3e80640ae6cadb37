#include "engine/models/hunyuan_video/transformer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/nn/grid_positions.h"
#include "engine/nn/modulation.h"
#include "engine/ops/linear.h"
#include "engine/ops/norm_modulate.h"

namespace kino::engine {
namespace {

constexpr double kQkNormEps = 1e-6;
constexpr NormStyle kNorm = {.kind = NormKind::kLayer, .eps = 1e-6};
constexpr int64_t kSinusoids = 256;
constexpr char kPrepare[] = "prepare";
// Parts of a block's modulation; a block of one stream has the first three.
enum { kShift, kScale, kGate, kMlpShift, kMlpScale, kMlpGate, kDualParts };
constexpr int64_t kSingleParts = 3;

int64_t TokensOf(const at::Tensor& tokens) { return tokens.defined() ? tokens.size(1) : 0; }

}  // namespace

HunyuanVideoTransformer::HunyuanVideoTransformer(const HunyuanVideoTransformerConfig& config,
                                                 const ComponentFiles& files, c10::ScalarType dtype,
                                                 c10::Device device)
    : Component(files, dtype, device), config_(config) {
  const int64_t d = config_.width(), p = config_.patch_size, in = config_.in_channels;
  for (const char* pattern : {"x_embedder", "context_embedder", "norm"})
    weights().SkipCasting(pattern);
  const WeightScope prepare(weights(), weights().AddGroup(kPrepare, kPrepare));
  const WeightScope condition = prepare.Sub("time_text_embed");
  time_embedder_ =
      std::make_unique<TimestepEmbedder>(condition.Sub("timestep_embedder"), kSinusoids, d);
  if (config_.guidance_embeds) {
    guidance_embedder_ =
        std::make_unique<TimestepEmbedder>(condition.Sub("guidance_embedder"), kSinusoids, d);
  }
  text_embedder_ = std::make_unique<Mlp>(Mlp::TextProjection(
      condition.Sub("text_embedder"), config_.pooled_projection_dim, d, Mlp::Activation::kSilu));
  out_modulation_ = prepare.Sub("norm_out").Linear("linear", d, 2 * d);
  if (config_.is_framepack) {
    const WeightScope image = prepare.Sub("image_projection");
    image_up_ = image.Linear("up", config_.image_proj_dim, 3 * d);
    image_down_ = image.Linear("down", 3 * d, d);
    const WeightScope clean = prepare.Sub("clean_x_embedder");
    clean_ = clean.Sub("proj").WithBias({d, in, 1, 2, 2}, LayerKind::kConvolution);
    clean_2x_ = clean.Sub("proj_2x").WithBias({d, in, 2, 4, 4}, LayerKind::kConvolution);
    clean_4x_ = clean.Sub("proj_4x").WithBias({d, in, 4, 8, 8}, LayerKind::kConvolution);
  }
  refiner_ =
      std::make_unique<TokenRefiner>(*this, prepare.Sub("context_embedder"), kPrepare,
                                     TokenRefiner::Options{.in = config_.text_embed_dim,
                                                           .heads = config_.num_attention_heads,
                                                           .width = d,
                                                           .layers = config_.num_refiner_layers});
  std::vector<WeightGroup*> groups, prepare_groups;
  MakeBlocks(groups, prepare_groups);
  // What comes before the blocks and behind them is little: it moves with the first and the last.
  patch_ = WeightScope(weights(), *groups.front())
               .Sub("x_embedder")
               .Sub("proj")
               .WithBias({d, in, 1, p, p}, LayerKind::kConvolution);
  proj_out_ =
      WeightScope(weights(), *groups.back()).Linear("proj_out", d, p * p * config_.out_channels);
  prepare_stack_ = std::make_unique<BlockStack>(residency(), std::move(prepare_groups));
  stack_ = std::make_unique<BlockStack>(residency(), std::move(groups));
}

void HunyuanVideoTransformer::MakeBlocks(std::vector<WeightGroup*>& groups,
                                         std::vector<WeightGroup*>& prepare_groups) {
  const int64_t d = config_.width(), mlp = config_.mlp_width();
  const auto scopes = [&](const char* name, int index) {
    groups.push_back(&weights().AddGroup(absl::StrCat(name, ".", index)));
    prepare_groups.push_back(
        &weights().AddGroup(absl::StrCat(kPrepare, ".", name, ".", index), kPrepare));
    const WeightScope scope = WeightScope(weights(), *groups.back()).Sub(name, index);
    return std::pair(scope, scope.In(*prepare_groups.back()));
  };
  const JointProjections::Options sizes = {.in = d, .width = d, .head = config_.attention_head_dim};
  for (int i = 0; i < config_.num_layers; ++i) {
    const auto [scope, modulation] = scopes("transformer_blocks", i);
    const auto stream = [&, &scope = scope, &modulation = modulation](
                            JointProjections::Names names, const char* norm, const char* out,
                            const char* feed_forward) {
      const WeightScope attention = scope.Sub("attn");
      return Stream{.projections = JointProjections(attention, names, sizes),
                    .modulation = modulation.Sub(norm).Linear("linear", d, kDualParts * d),
                    .out = attention.Linear(out, d, d),
                    .feed_forward = std::make_unique<Mlp>(
                        Mlp::FeedForward(scope.Sub(feed_forward), d, {.inner = mlp}))};
    };
    dual_.push_back({.video = stream(JointProjections::Names::kOwn, "norm1", "to_out.0", "ff"),
                     .text = stream(JointProjections::Names::kAdded, "norm1_context", "to_add_out",
                                    "ff_context")});
  }
  for (int i = 0; i < config_.num_single_layers; ++i) {
    const auto [scope, modulation] = scopes("single_transformer_blocks", i);
    single_.push_back(
        {.projections = JointProjections(scope.Sub("attn"), JointProjections::Names::kOwn, sizes),
         .modulation = modulation.Sub("norm").Linear("linear", d, kSingleParts * d),
         .feed_forward = ParallelMlp(scope, d, mlp)});
  }
}

RotaryTable HunyuanVideoTransformer::FrameAngles(const std::vector<int64_t>& indices,
                                                 const HunyuanVideoGrid& grid) const {
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device());
  const auto axis = [&](const at::Tensor& positions, size_t i) {
    return RotaryAngles(positions, config_.rope_axes_dim[i], config_.rope_theta);
  };
  const at::Tensor frames =
      at::tensor(indices, at::TensorOptions().dtype(at::kLong)).to(at::kFloat).to(device());
  const at::Tensor angles =
      OverGrid(axis(frames, 0), axis(at::arange(grid.height / config_.patch_size, options), 1),
               axis(at::arange(grid.width / config_.patch_size, options), 2));
  return {.cos = angles.cos(), .sin = angles.sin()};
}

void HunyuanVideoTransformer::Arrange(Prepared& prepared, const RotaryTable& video) const {
  std::vector<int64_t> lengths;
  std::vector<at::Tensor> cos, sin;
  for (size_t row = 0; row < prepared.texts.size(); ++row) {
    lengths.push_back(TokensOf(prepared.images[row]) + prepared.texts[row].size(1));
    const std::vector<int64_t> shape = {lengths.back(), video.cos.size(1)};
    cos.insert(cos.end(), {video.cos, at::ones(shape, video.cos.options())});
    sin.insert(sin.end(), {video.sin, at::zeros(shape, video.sin.options())});
  }
  prepared.layout = JointLayout(video.cos.size(0), std::move(lengths));
  prepared.rotary = {.cos = at::cat(cos), .sin = at::cat(sin)};
}

at::Tensor HunyuanVideoTransformer::Conditions(const std::vector<HunyuanVideoText>& texts,
                                               const at::Tensor& times,
                                               std::optional<float> guidance) const {
  std::vector<at::Tensor> pooled;
  for (const HunyuanVideoText& text : texts) pooled.push_back(text.pooled.to(dtype()));
  const at::Tensor text = text_embedder_->Forward(at::cat(pooled)).unsqueeze(0);  // [1, B, D]
  at::Tensor conditions = time_embedder_->Forward(times, dtype()).unsqueeze(1);   // [T, 1, D]
  if (guidance_embedder_ != nullptr) {
    TORCH_CHECK(guidance.has_value(),
                "HunyuanVideo's transformer: no guidance is given, and the "
                "config has guidance_embeds");
    const at::Tensor scale = at::full({1}, *guidance, times.options()).to(dtype()).to(at::kFloat);
    conditions = conditions + guidance_embedder_->Forward(scale, dtype()).unsqueeze(1);
  }
  conditions = conditions + text;
  if (config_.image_condition_type == Config::ImageCondition::kTokenReplace) {
    const at::Tensor start = at::zeros({1}, times.options());
    conditions = at::cat({conditions, time_embedder_->Forward(start, dtype()).unsqueeze(1) + text});
  }
  return at::silu_(conditions);
}

HunyuanVideoTransformer::Prepared HunyuanVideoTransformer::Prepare(
    const std::vector<HunyuanVideoText>& texts, const HunyuanVideoGrid& grid,
    const std::vector<float>& timesteps, std::optional<float> guidance,
    const RunContext& context) const {
  Prepared prepared;
  prepared.grid = grid;
  if (config_.image_condition_type == Config::ImageCondition::kTokenReplace)
    prepared.first_frame = grid.height / config_.patch_size * (grid.width / config_.patch_size);
  const at::Tensor times =
      at::tensor(timesteps, at::TensorOptions().dtype(at::kFloat)).to(device());
  std::vector<at::Tensor> tokens;
  for (const HunyuanVideoText& text : texts) {
    tokens.push_back(text.tokens.to(dtype()));
    TORCH_CHECK(config_.is_framepack || !text.image.defined(),
                "an image's tokens for a HunyuanVideo transformer that is not FramePack's");
    at::Tensor image;
    if (text.image.defined()) {
      image = image_up_.Apply(text.image.to(dtype()));
      image = image_down_.Apply(at::silu_(image));
    }
    prepared.images.push_back(std::move(image));
  }
  prepared.texts = refiner_->Refine(tokens, times, context);
  std::vector<int64_t> frames(static_cast<size_t>(grid.frames));
  std::iota(frames.begin(), frames.end(), 0);
  Arrange(prepared, FrameAngles(frames, grid));

  const at::Tensor conditions = Conditions(texts, times, guidance);
  const at::Tensor of_steps = conditions.narrow(0, 0, times.size(0));
  Streams none;
  prepare_stack_->Run(context, none, [&](int i, Streams&) {
    if (i >= config_.num_layers) {
      const SingleBlock& block = single_[static_cast<size_t>(i - config_.num_layers)];
      prepared.modulation.push_back(ByPart(block.modulation.Apply(conditions), kSingleParts));
      return;
    }
    const DualBlock& block = dual_[static_cast<size_t>(i)];
    prepared.modulation.push_back(ByPart(block.video.modulation.Apply(conditions), kDualParts));
    prepared.text_modulation.push_back(ByPart(block.text.modulation.Apply(of_steps), kDualParts));
  });
  prepared.out_modulation = ByPart(out_modulation_.Apply(of_steps), 2).unsqueeze(3);
  return prepared;
}

// A convolution of 1 x 2 x 2 latents, or of as many times that as the history is shrunk.
at::Tensor HunyuanVideoTransformer::EmbedHistory(const WeightAndBias& layer,
                                                 const at::Tensor& latents, int64_t shrink) const {
  const int64_t p = shrink * config_.patch_size;
  const at::Tensor patches =
      PackPatches(RepeatToMultiples(latents, shrink, p).to(dtype()), p, shrink);
  return Linear(patches, layer.weight.get()->flatten(1), layer.bias.get());
}

void HunyuanVideoTransformer::SetHistory(Prepared& prepared,
                                         const HunyuanVideoHistory& history) const {
  TORCH_CHECK(config_.is_framepack,
              "a history for a HunyuanVideo transformer that is not FramePack's");
  const HunyuanVideoGrid& grid = prepared.grid;
  TORCH_CHECK(static_cast<int64_t>(history.indices.size()) == grid.frames,
              "FramePack: ", history.indices.size(), " indices of ", grid.frames, " frames");
  // In the order of the sequence: what is longest ago comes first.
  std::vector<at::Tensor> tokens, cos, sin;
  const auto add = [&](const HunyuanVideoHistory::Frames& frames, const WeightAndBias& layer,
                       int64_t shrink) {
    if (!frames.latents.defined()) return;
    TORCH_CHECK(static_cast<int64_t>(frames.indices.size()) == frames.latents.size(2) &&
                    frames.latents.size(3) == grid.height && frames.latents.size(4) == grid.width,
                "FramePack: a history of ", frames.latents.sizes(), " with ", frames.indices.size(),
                " indices for latents of ", grid.height, " x ", grid.width);
    tokens.push_back(EmbedHistory(layer, frames.latents, shrink));
    RotaryTable angles = FrameAngles(frames.indices, grid);
    if (shrink > 1) {
      const int64_t height = grid.height / config_.patch_size,
                    width = grid.width / config_.patch_size;
      angles.cos = MeanOverCubes(angles.cos, height, width, shrink);
      angles.sin = MeanOverCubes(angles.sin, height, width, shrink);
    }
    cos.push_back(std::move(angles.cos));
    sin.push_back(std::move(angles.sin));
  };
  add(history.clean_4x, clean_4x_, 4);
  add(history.clean_2x, clean_2x_, 2);
  add(history.clean, clean_, 1);
  RotaryTable latents = FrameAngles(history.indices, grid);
  cos.push_back(std::move(latents.cos));
  sin.push_back(std::move(latents.sin));
  prepared.history = tokens.empty() ? at::Tensor() : at::cat(tokens, 1);
  Arrange(prepared, {.cos = at::cat(cos), .sin = at::cat(sin)});
}

at::Tensor HunyuanVideoTransformer::PackedText(const Prepared& prepared, int step) const {
  if (prepared.layout.text_tokens() == 0) return {};
  std::vector<at::Tensor> parts;
  for (size_t row = 0; row < prepared.texts.size(); ++row) {
    if (prepared.images[row].defined()) parts.push_back(prepared.images[row]);
    parts.push_back(prepared.texts[row].narrow(0, step, 1));
  }
  // The blocks change it in place; Prepared keeps its own.
  return at::cat(parts, 1);
}

void HunyuanVideoTransformer::RunDual(int index, const Prepared& prepared, int step,
                                      at::Tensor& video, at::Tensor& text,
                                      const RunContext& context) const {
  const DualBlock& block = dual_[static_cast<size_t>(index)];
  const JointLayout& layout = prepared.layout;
  const at::Tensor modulation =
      OfStep(prepared.modulation[static_cast<size_t>(index)], step, prepared.first_frame > 0);
  const at::Tensor text_modulation = prepared.text_modulation[static_cast<size_t>(index)][step];
  const TokenSpans spans = layout.VideoSpans(prepared.first_frame), by_row = layout.TextSpans();
  const RotaryTable rotary = {.cos = prepared.rotary.cos.narrow(0, 0, video.size(1)),
                              .sin = prepared.rotary.sin.narrow(0, 0, video.size(1))};
  at::Tensor normed_text;
  if (text.defined()) {
    normed_text =
        NormModulate(text, kNorm, text_modulation[kShift], text_modulation[kScale], by_row);
  }
  JointAttended attended =
      AttendJointly(layout, block.video.projections,
                    NormModulate(video, kNorm, modulation[kShift], modulation[kScale], spans),
                    block.text.projections, std::move(normed_text), rotary,
                    {.heads = config_.num_attention_heads, .norm_eps = kQkNormEps});
  const auto mix = [&](const Stream& stream, at::Tensor& hidden, at::Tensor& seen,
                       const at::Tensor& parts, const TokenSpans& of) {
    seen = stream.out.Apply(seen);
    AddGated(hidden, seen, parts[kGate], of);
    seen = stream.feed_forward->Forward(
        NormModulate(hidden, kNorm, parts[kMlpShift], parts[kMlpScale], of),
        context.chunk_feed_forward);
    AddGated(hidden, seen, parts[kMlpGate], of);
  };
  mix(block.video, video, attended.video, modulation, spans);
  if (text.defined()) mix(block.text, text, attended.text, text_modulation, by_row);
}

void HunyuanVideoTransformer::RunSingle(int index, const Prepared& prepared, int step,
                                        at::Tensor& tokens, const RunContext& context) const {
  const SingleBlock& block = single_[static_cast<size_t>(index - config_.num_layers)];
  // [3, rows of the table, D]
  const at::Tensor modulation =
      OfStep(prepared.modulation[static_cast<size_t>(index)], step, prepared.first_frame > 0)
          .flatten(1, 2);
  const TokenSpans spans = prepared.layout.JoinedSpans(prepared.first_frame);
  at::Tensor normed = NormModulate(tokens, kNorm, modulation[kShift], modulation[kScale], spans);
  at::Tensor attended =
      AttendJoined(prepared.layout, block.projections, normed, prepared.rotary,
                   {.heads = config_.num_attention_heads, .norm_eps = kQkNormEps});
  at::Tensor out = block.feed_forward.Forward(std::move(attended), std::move(normed),
                                              context.chunk_feed_forward);
  AddGated(tokens, out, modulation[kGate], spans);
}

at::Tensor HunyuanVideoTransformer::Forward(const Prepared& prepared, int step,
                                            const at::Tensor& latents,
                                            const RunContext& context) const {
  const int64_t p = config_.patch_size, batch = latents.size(0), frames = latents.size(2),
                height = latents.size(3) / p, width = latents.size(4) / p;
  const JointLayout& layout = prepared.layout;
  Streams streams = {Linear(PackPatches(latents.to(dtype()), p), patch_.weight.get()->flatten(1),
                            patch_.bias.get()),
                     PackedText(prepared, step)};
  const int64_t made = streams[0].size(1);
  if (prepared.history.defined())
    streams[0] = at::cat({prepared.history.expand({batch, -1, -1}), streams[0]}, 1);
  stack_->Run(context, streams, [&](int i, Streams& between) {
    if (i < config_.num_layers) return RunDual(i, prepared, step, between[0], between[1], context);
    if (i == config_.num_layers) between = {layout.Join(between[0], between[1])};
    RunSingle(i, prepared, step, between[0], context);
  });
  std::vector<at::Tensor> rows;
  for (int64_t row = 0; row < layout.rows(); ++row) {
    const at::Tensor video = layout.Video(streams[0], row);
    rows.push_back(video.narrow(1, video.size(1) - made, made));
  }
  streams.clear();
  const at::Tensor hidden = rows.size() == 1 ? rows[0] : at::cat(rows, 0);
  rows.clear();
  const at::Tensor modulation = prepared.out_modulation[step];
  const int scale = config_.original_layout ? 1 : 0;
  return proj_out_
      .Apply(NormModulate(hidden, kNorm, modulation[1 - scale], modulation[scale], {{0, made, 0}}))
      .view({batch, frames, height, width, config_.out_channels, p, p})
      .permute({0, 4, 1, 2, 5, 3, 6})
      .reshape({batch, config_.out_channels, frames, height * p, width * p});
}

}  // namespace kino::engine
