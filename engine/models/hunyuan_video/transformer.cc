#include "engine/models/hunyuan_video/transformer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/avg_pool3d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/replication_pad3d.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/nn/grid_positions.h"
#include "engine/ops/attention.h"
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
// Tokens of a block of one stream that go through its first feed-forward layer at a time, so that
// the inner width is held once, beside what attention saw, and not twice.
constexpr int64_t kInnerTokens = 2048;

// [T, B, parts * D] -> [T, parts, B, D]
at::Tensor ByPart(const at::Tensor& modulation, int64_t parts) {
  return modulation.unflatten(2, {parts, -1}).transpose(1, 2).contiguous();
}

// Repeats the last of an axis until each is a multiple. x: [B, C, F, h, w]
at::Tensor PadToMultiples(const at::Tensor& x, int64_t frames, int64_t space) {
  const auto missing = [&x](int64_t axis, int64_t of) { return (of - x.size(axis) % of) % of; };
  const int64_t time = missing(2, frames), rows = missing(3, space), columns = missing(4, space);
  if (time + rows + columns == 0) return x;
  return at::replication_pad3d(x, {0, columns, 0, rows, 0, time});
}

// The mean of the angles' cosines, or sines, of n x n x n tokens. table: [F * h * w, K]
at::Tensor ShrinkTable(const at::Tensor& table, int64_t height, int64_t width, int64_t n) {
  const at::Tensor grid = table.t().unflatten(1, {-1, height, width}).unsqueeze(0);
  return at::avg_pool3d(PadToMultiples(grid, n, n), {n, n, n}, {n, n, n})
      .squeeze(0)
      .flatten(1)
      .t()
      .contiguous();
}

int64_t TokensOf(const at::Tensor& tokens) { return tokens.defined() ? tokens.size(1) : 0; }

// What of a block's modulation a step uses. modulation: [T, parts, B, D], or where the first frame
// has its own [T + 1, ...] -> [parts, B, 1, D], or [parts, B, 2, D] with the first frame's behind.
at::Tensor OfStep(const at::Tensor& modulation, int step, int64_t first_frame) {
  if (first_frame == 0) return modulation[step].unsqueeze(2);
  return at::stack({modulation[step], modulation[-1]}, 2);
}

// Two streams as one sequence. video: [B, S, D]; text: packed, or undefined.
at::Tensor Join(const JointLayout& layout, const at::Tensor& video, const at::Tensor& text) {
  at::Tensor joined = at::empty({1, layout.tokens(), video.size(2)}, video.options());
  for (int64_t row = 0; row < layout.rows(); ++row) {
    layout.Video(joined, row).copy_(video.narrow(0, row, 1));
    if (text.defined()) layout.Text(joined, row).copy_(layout.PackedText(text, row));
  }
  return joined;
}

// The spans of a row's video, its first frame those of the table's second row.
TokenSpans VideoSpans(const JointLayout& layout, int64_t first_frame) {
  const int64_t all = layout.video_tokens();
  if (first_frame == 0) return {{0, all, 0}};
  return {{0, first_frame, 1}, {first_frame, all, 0}};
}

// The spans of joined tokens, in a table of one row for each row of the batch, or of two.
TokenSpans JointSpans(const JointLayout& layout, int64_t first_frame) {
  TokenSpans spans;
  for (const TokenSpan& text : layout.TextSpans()) {
    const int64_t begin = text.row * layout.video_tokens() + text.begin;
    const int64_t end = (text.row + 1) * layout.video_tokens() + text.end;
    if (first_frame == 0) {
      spans.push_back({begin, end, text.row});
    } else {
      spans.push_back({begin, begin + first_frame, 2 * text.row + 1});
      spans.push_back({begin + first_frame, end, 2 * text.row});
    }
  }
  return spans;
}

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
  refiner_ = std::make_unique<HunyuanVideoTokenRefiner>(
      *this, prepare.Sub("context_embedder"), kPrepare,
      HunyuanVideoTokenRefiner::Options{.in = config_.text_embed_dim,
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
  const int64_t d = config_.width(), head = config_.attention_head_dim, mlp = config_.mlp_width();
  // The names of q, k, v, their norms and the layer of the modulation.
  const auto projections = [&](const WeightScope& scope, const WeightScope& modulation,
                               const std::array<const char*, 6>& names, int64_t parts) {
    const WeightScope attention = scope.Sub("attn");
    return Projections{.q = attention.Linear(names[0], d, d),
                       .k = attention.Linear(names[1], d, d),
                       .v = attention.Linear(names[2], d, d),
                       .norm_q = attention.Sub(names[3]).Get("weight", {head}),
                       .norm_k = attention.Sub(names[4]).Get("weight", {head}),
                       .modulation = modulation.Sub(names[5]).Linear("linear", d, parts * d)};
  };
  const auto scopes = [&](const char* name, int index) {
    groups.push_back(&weights().AddGroup(absl::StrCat(name, ".", index)));
    prepare_groups.push_back(
        &weights().AddGroup(absl::StrCat(kPrepare, ".", name, ".", index), kPrepare));
    const WeightScope scope = WeightScope(weights(), *groups.back()).Sub(name, index);
    return std::pair(scope, scope.In(*prepare_groups.back()));
  };
  for (int i = 0; i < config_.num_layers; ++i) {
    const auto [scope, modulation] = scopes("transformer_blocks", i);
    const auto stream = [&, &scope = scope, &modulation = modulation](
                            const std::array<const char*, 6>& names, const char* out,
                            const char* feed_forward) {
      Stream made{projections(scope, modulation, names, kDualParts), {}, {}};
      made.out = scope.Sub("attn").Linear(out, d, d);
      made.feed_forward =
          std::make_unique<Mlp>(Mlp::FeedForward(scope.Sub(feed_forward), d, {.inner = mlp}));
      return made;
    };
    DualBlock& block = dual_.emplace_back();
    block.video = stream({"to_q", "to_k", "to_v", "norm_q", "norm_k", "norm1"}, "to_out.0", "ff");
    block.text = stream(
        {"add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k", "norm1_context"},
        "to_add_out", "ff_context");
  }
  for (int i = 0; i < config_.num_single_layers; ++i) {
    const auto [scope, modulation] = scopes("single_transformer_blocks", i);
    single_.push_back(
        {projections(scope, modulation, {"to_q", "to_k", "to_v", "norm_q", "norm_k", "norm"},
                     kSingleParts),
         scope.Linear("proj_mlp", d, mlp), scope.Linear("proj_out", d + mlp, d)});
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
  const at::Tensor patches = PackPatches(PadToMultiples(latents, shrink, p).to(dtype()), p, shrink);
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
      angles.cos = ShrinkTable(angles.cos, height, width, shrink);
      angles.sin = ShrinkTable(angles.sin, height, width, shrink);
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
      OfStep(prepared.modulation[static_cast<size_t>(index)], step, prepared.first_frame);
  const at::Tensor text_modulation = prepared.text_modulation[static_cast<size_t>(index)][step];
  const TokenSpans spans = VideoSpans(layout, prepared.first_frame), by_row = layout.TextSpans();
  const RotaryTable rotary = {.cos = prepared.rotary.cos.narrow(0, 0, video.size(1)),
                              .sin = prepared.rotary.sin.narrow(0, 0, video.size(1))};

  at::Tensor normed = NormModulate(video, kNorm, modulation[kShift], modulation[kScale], spans);
  // One layer's weights at a time: each is in an expression of its own.
  at::Tensor q = block.video.q.Apply(normed);
  q = NormRotary(std::move(q), block.video.norm_q.get(), kQkNormEps, rotary);
  at::Tensor k = at::empty({1, layout.tokens(), config_.width()}, video.options());
  at::Tensor v = at::empty_like(k);
  {
    const at::Tensor keys = block.video.k.Apply(normed);
    for (int64_t row = 0; row < layout.rows(); ++row) {
      NormRotaryInto(keys.narrow(0, row, 1), block.video.norm_k.get(), kQkNormEps, rotary,
                     layout.Video(k, row));
    }
  }
  {
    const at::Tensor values = block.video.v.Apply(normed);
    for (int64_t row = 0; row < layout.rows(); ++row)
      layout.Video(v, row).copy_(values.narrow(0, row, 1));
  }
  normed.reset();
  at::Tensor text_q;
  if (text.defined()) {
    const at::Tensor normed_text =
        NormModulate(text, kNorm, text_modulation[kShift], text_modulation[kScale], by_row);
    at::Tensor keys = block.text.k.Apply(normed_text);
    keys = NormRotary(std::move(keys), block.text.norm_k.get(), kQkNormEps);
    const at::Tensor values = block.text.v.Apply(normed_text);
    for (int64_t row = 0; row < layout.rows(); ++row) {
      layout.Text(k, row).copy_(layout.PackedText(keys, row));
      layout.Text(v, row).copy_(layout.PackedText(values, row));
    }
    text_q = block.text.q.Apply(normed_text);
    text_q = NormRotary(std::move(text_q), block.text.norm_q.get(), kQkNormEps);
  }
  JointAttended attended = JointAttention(layout, q, text_q, k, v, config_.num_attention_heads,
                                          /*wants_text=*/true);
  for (at::Tensor* used : {&q, &k, &v, &text_q}) used->reset();

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

// What attention saw and the feed-forward's inner width beside it, through one layer. Both: [1, N,
// D], let go of as soon as they are used.
at::Tensor HunyuanVideoTransformer::SingleOut(const SingleBlock& block, at::Tensor attended,
                                              at::Tensor normed, const RunContext& context) const {
  const int64_t d = config_.width(), mlp = config_.mlp_width(), tokens = attended.size(1);
  const int64_t at_once = context.chunk_feed_forward > 0
                              ? std::min<int64_t>(context.chunk_feed_forward, tokens)
                              : tokens;
  at::Tensor out;
  for (int64_t start = 0; start < tokens; start += at_once) {
    const int64_t count = std::min(at_once, tokens - start);
    const at::Tensor inputs = at::empty({1, count, d + mlp}, attended.options());
    inputs.narrow(2, 0, d).copy_(attended.narrow(1, start, count));
    if (count == tokens) attended.reset();
    for (int64_t inner = 0; inner < count; inner += kInnerTokens) {
      const int64_t part = std::min(kInnerTokens, count - inner);
      at::Tensor hidden = block.proj_mlp.Apply(normed.narrow(1, start + inner, part));
      inputs.narrow(1, inner, part).narrow(2, d, mlp).copy_(at::gelu_(hidden, "tanh"));
    }
    if (count == tokens) {
      normed.reset();
      return block.proj_out.Apply(inputs);
    }
    if (!out.defined()) out = at::empty_like(attended);
    out.narrow(1, start, count).copy_(block.proj_out.Apply(inputs));
  }
  return out;
}

void HunyuanVideoTransformer::RunSingle(int index, const Prepared& prepared, int step,
                                        at::Tensor& tokens, const RunContext& context) const {
  const SingleBlock& block = single_[static_cast<size_t>(index - config_.num_layers)];
  const JointLayout& layout = prepared.layout;
  // [3, rows of the table, D]
  const at::Tensor modulation =
      OfStep(prepared.modulation[static_cast<size_t>(index)], step, prepared.first_frame)
          .flatten(1, 2);
  const TokenSpans spans = JointSpans(layout, prepared.first_frame);
  at::Tensor normed = NormModulate(tokens, kNorm, modulation[kShift], modulation[kScale], spans);
  at::Tensor q = block.q.Apply(normed);
  q = NormRotary(std::move(q), block.norm_q.get(), kQkNormEps, prepared.rotary);
  at::Tensor k = block.k.Apply(normed);
  k = NormRotary(std::move(k), block.norm_k.get(), kQkNormEps, prepared.rotary);
  at::Tensor v = block.v.Apply(normed);
  std::vector<at::Tensor> rows;
  for (int64_t row = 0; row < layout.rows(); ++row)
    rows.push_back(Attention(layout.Row(q, row), layout.Row(k, row), layout.Row(v, row),
                             config_.num_attention_heads));
  for (at::Tensor* used : {&q, &k, &v}) used->reset();
  at::Tensor attended = rows.size() == 1 ? rows[0] : at::cat(rows, 1);
  rows.clear();
  at::Tensor out = SingleOut(block, std::move(attended), std::move(normed), context);
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
    if (i == config_.num_layers) between = {Join(layout, between[0], between[1])};
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
