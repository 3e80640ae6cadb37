#include "engine/models/ltx/long_run.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "absl/strings/str_split.h"
#include "engine/core/status_bridge.h"
#include "engine/models/common/feathered_tiles.h"
#include "engine/models/common/latent_statistics.h"
#include "engine/models/common/latents.h"
#include "engine/models/ltx/describe.h"
#include "engine/models/ltx/latents.h"
#include "engine/models/ltx/tokens.h"
#include "engine/text/plain_text.h"

namespace kino::engine {
namespace {

// Of a typical run's time.
constexpr double kTextShare = 0.02;
constexpr double kMediaShare = 0.01;
constexpr double kDenoiseShare = 0.82;
constexpr double kDecodeShare = 0.15;

}  // namespace

std::vector<std::string> PromptSegments(const std::string& prompt) {
  std::vector<std::string> segments = absl::StrSplit(prompt, '|');
  for (std::string& segment : segments) segment = std::string(Strip(segment));
  return segments;
}

LtxLongRun::LtxLongRun(Inputs inputs)
    : FamilyRun(std::move(inputs)),
      knobs_(ReadKnobs(kLtxKnobs, request_.knobs)),
      sizes_(knobs_, vae().config().temporal_compression_ratio),
      grid_({.frames = (*request_.num_frames - 1) / vae().config().temporal_compression_ratio + 1,
             .height = *request_.height / vae().config().spatial_compression_ratio,
             .width = *request_.width / vae().config().spatial_compression_ratio}),
      windows_(SplitIntoWindows(grid_.frames, sizes_)),
      schedule_(ValueOrThrow(LtxLongSchedule(components_->sampler, request_))) {
  AddStage(Stage::kEncodeText, kTextShare, 1, &LtxLongRun::EncodeText);
  // Upstream looks at the image only so far as it holds.
  if (!media_.empty() && request_.conditions[0].strength > 0)
    AddStage(Stage::kEncodeMedia, kMediaShare, 1, &LtxLongRun::EncodeFirstFrame);
  AddStage(Stage::kDenoise, kDenoiseShare,
           static_cast<int>(windows_.size() * schedule_.timesteps.size()), &LtxLongRun::Denoise);
  AddDecode(kDecodeShare, static_cast<int>(PixelFrames()), &LtxLongRun::StartDecode);
}

int64_t LtxLongRun::PixelFrames() const {
  return (windows_.back().made - 1) * vae().config().temporal_compression_ratio + 1;
}

void LtxLongRun::Drop(Stage stage) {
  if (stage == Stage::kDenoise) window_.reset();
}

void LtxLongRun::EncodeText(const RunContext& context) {
  std::vector<std::optional<std::string>> prompts;
  if (guided()) prompts.emplace_back(request_.negative_prompt);
  for (std::string& segment : PromptSegments(*request_.prompt)) {
    if (prompts.size() < windows_.size() + guided()) prompts.emplace_back(std::move(segment));
  }
  state_.text = EncodeTexts(prompts, PromptPadding::kSeen, *knobs_.max_sequence_length, context);
  const c10::Device device = components_->transformer->device();
  state_.latents = at::zeros({1, components_->transformer->config().in_channels,
                              windows_.back().made, grid_.height, grid_.width},
                             at::TensorOptions().dtype(at::kFloat).device(device));
  state_.reference = state_.latents.narrow(2, 0, windows_[0].frames());
  Finish(1, /*is_last=*/true);
}

void LtxLongRun::EncodeFirstFrame(const RunContext& context) {
  const VideoSize size = {.height = *request_.height, .width = *request_.width, .num_frames = 1};
  state_.condition =
      NormalizeLtxLatents(vae(), PosteriorMode(vae().Encode(ConditionVideo(media_[0], size),
                                                            request_.plan.vae_tiling, context)));
  TapTensor(tap_, "condition_latents_0", state_.condition);
  Finish(1, /*is_last=*/true);
}

LtxLongRun::Window LtxLongRun::PrepareWindow(size_t index, const RunContext& context) const {
  Window window{.index = index, .place = windows_[index]};
  const at::TensorOptions options = state_.latents.options();
  const int64_t own = window.place.frames(), overlap = index > 0 ? sizes_.overlap : 0;
  const double held_overlap = *knobs_.temporal_overlap_cond_strength;

  // Frames in the order in which the transformer has them: the window's own, then copies of the end
  // of the window before, then the first frame once more, as if it lay in front of the video.
  std::vector<at::Tensor> held = {
      at::zeros({1, state_.latents.size(1), own, grid_.height, grid_.width}, options)};
  std::vector<at::Tensor> free, positions;
  const size_t steps = schedule_.timesteps.size();
  std::vector<float> timesteps, levels;
  const auto add = [&](int64_t frames, double strength) {
    const float level = static_cast<float>(1.0 - strength);
    const int64_t tokens = frames * grid_.height * grid_.width;
    const int64_t begin = window.spans.empty() ? 0 : window.spans.back().end;
    const size_t row =
        static_cast<size_t>(std::find(levels.begin(), levels.end(), level) - levels.begin());
    if (row == levels.size()) {
      levels.push_back(level);
      for (const float timestep : schedule_.timesteps) timesteps.push_back(timestep * level);
    }
    window.spans.push_back({begin, begin + tokens, static_cast<int64_t>(row * steps)});
    free.push_back(at::ones({1, tokens, 1}, options) * level);
  };
  const bool is_first = index == 0 && state_.condition.defined();
  if (is_first) {
    held[0].narrow(2, 0, 1).copy_(state_.condition);
    add(1, request_.conditions[0].strength);
  }
  if (own > is_first) add(own - is_first, 0);
  if (overlap > 0 && held_overlap > 0) {
    held.push_back(state_.latents.narrow(2, window.place.before - overlap, overlap));
    add(overlap, held_overlap);
  }
  if (state_.condition.defined()) {
    held.push_back(state_.condition);
    add(1, 1);
  }
  const at::Tensor frames = at::cat(held, 2);
  window.held = PackLatents(frames);
  window.free = at::cat(free, 1);

  // The last `overlap` frames in front of the first one's copy stand at the window's beginning.
  // With a strength of 0 nothing was put there, and upstream moves the window's own last frames
  // thither.
  const int64_t copies = state_.condition.defined();
  const auto place = [&](int64_t count, int64_t frame_index) {
    if (count > 0) {
      positions.push_back(PixelPositionsFrom({count, grid_.height, grid_.width}, frame_index,
                                             vae().config(), *knobs_.frame_rate, options.device()));
    }
  };
  place(frames.size(2) - overlap - copies, 0);
  place(overlap, 0);
  place(copies, -vae().config().temporal_compression_ratio);
  const size_t first = guided() ? 1 : 0;  // segment; the negative prompt is in front
  std::vector<size_t> prompts = {std::min(first + index, state_.text.size() - 1)};
  if (guided()) prompts.insert(prompts.begin(), 0);
  for (const size_t prompt : prompts) {
    window.rows.push_back(components_->transformer->Prepare(
        state_.text[prompt], at::cat(positions), timesteps,
        window.rows.empty() ? nullptr : window.rows.data(), context));
  }
  return window;
}

at::Tensor LtxLongRun::Predict(size_t step, const RunContext& context) const {
  TokenSpans spans = window_->spans;
  for (TokenSpan& span : spans) span.row += static_cast<int64_t>(step);
  return PredictLtx(*components_->transformer, window_->rows, spans, state_.window,
                    {.scale = *request_.guidance_scale, .rescale = *knobs_.guidance_rescale},
                    context);
}

void LtxLongRun::Denoise(const RunContext& context) {
  const size_t steps = schedule_.timesteps.size();
  const size_t step = static_cast<size_t>(state_.step) % steps;
  size_t index = static_cast<size_t>(state_.step) / steps;
  const c10::Device device = state_.latents.device();
  if (device.is_meta()) {
    // A trace sees the first step alone: let it be one of the window with most to hold.
    const auto seen = [&](const LtxWindow& window) {
      return window.frames() + (window.before > 0 ? sizes_.overlap : 0);
    };
    index = static_cast<size_t>(std::max_element(windows_.begin(), windows_.end(),
                                                 [&](const LtxWindow& a, const LtxWindow& b) {
                                                   return seen(a) < seen(b);
                                                 }) -
                                windows_.begin());
  }
  if (!window_ || window_->index != index) window_ = PrepareWindow(index, context);
  const auto hold = [this](const at::Tensor& latents) {
    return latents * window_->free + window_->held * (1.0 - window_->free);
  };
  if (step == 0) {
    // A generator of its own for each window; the run's, which decodes, has drawn nothing yet.
    state_.noise = NoiseSource(*request_.seed + static_cast<uint64_t>(window_->place.begin));
    const int64_t frames = window_->held.size(1) / (grid_.height * grid_.width);
    state_.window = hold(PackLatents(state_.noise.Randn(
        {1, state_.latents.size(1), frames, grid_.height, grid_.width}, at::kFloat, device)));
  }
  // The transformer sees the latents before they are held to what is given once more.
  const at::Tensor prediction = Predict(step, context);
  const at::Tensor latents = hold(state_.window);
  const float sigma = schedule_.sigmas[step], next = schedule_.sigmas[step + 1];
  const std::optional<EulerAncestralRfConfig>& ancestral = components_->sampler.ancestral;
  at::Tensor noise;
  if (ancestral && DrawsNoise(*ancestral, next))
    noise = state_.noise.Randn(latents.sizes(), at::kFloat, device);
  state_.window =
      hold(ancestral ? EulerAncestralRfStep(*ancestral, latents, prediction, noise, sigma, next)
                     : EulerStep(latents, prediction, sigma, next));
  TapStep(state_.step, state_.window);
  if (step + 1 == steps) FinishWindow();
  Finish(1, /*is_last=*/state_.step + 1 == static_cast<int>(windows_.size() * steps));
}

void LtxLongRun::FinishWindow() {
  const LtxWindow& place = window_->place;
  const int64_t frames = state_.window.size(1) / (grid_.height * grid_.width);
  at::Tensor made =
      UnpackLatents(state_.window, frames, grid_.height, grid_.width).narrow(2, 0, place.frames());
  if (place.before == 0) {
    state_.reference = made;
  } else {
    made = made.narrow(2, 1, place.frames() - 1);
    const double factor = *knobs_.adain_factor;
    if (factor > 0 && place.frames() > 1) made = LikenStatistics(made, state_.reference, factor);
    made = FuseOverlap(state_.latents.narrow(2, 0, place.before), made, sizes_.faded());
  }
  const at::Tensor rest = state_.latents.narrow(2, place.made, state_.latents.size(2) - place.made);
  state_.latents = at::cat({made, rest}, 2);
  state_.window.reset();
}

std::unique_ptr<DecodeStream> LtxLongRun::StartDecode() {
  at::Tensor latents = DenormalizeLtxLatents(vae(), state_.latents).to(vae().dtype());
  // The last latent frame twice, so that it has a neighbour; what that gives is left out.
  latents = at::cat({latents, latents.narrow(2, latents.size(2) - 1, 1)}, 2);
  state_.noise = NoiseSource(*request_.seed);
  const at::Tensor timestep = AddDecodeNoise(vae(), knobs_, latents, state_.noise);
  state_.latents = latents;
  TapTensor(tap_, "latents", latents);
  const LtxVaeDecodeOptions options = {.timestep = timestep,
                                       .noise_generator = state_.noise.global(),
                                       .tiling = request_.plan.vae_tiling};
  return std::make_unique<FeatheredStream>(
      [&](const at::Tensor& tile) { return vae().Decode(tile, options); }, latents,
      FeatheredTiles{.vertical = *knobs_.decode_vertical_tiles,
                     .horizontal = *knobs_.decode_horizontal_tiles,
                     .overlap = *knobs_.decode_overlap,
                     .ratio = vae().config().spatial_compression_ratio},
      PixelFrames());
}

}  // namespace kino::engine
