#include "engine/models/ltx/run.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/lerp.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/core/status_bridge.h"
#include "engine/models/common/latents.h"
#include "engine/models/ltx/describe.h"
#include "engine/models/ltx/latents.h"
#include "engine/samplers/first_step.h"

namespace kino::engine {
namespace {

// Of a typical run's time.
constexpr double kTextShare = 0.02;
constexpr double kMediaShare = 0.02;
constexpr double kDenoiseShare = 0.82;  // of all passes
constexpr double kUpscaleShare = 0.02;
constexpr double kDecodeShare = 0.14;

}  // namespace

LtxRun::LtxRun(Inputs inputs)
    : FamilyRun(std::move(inputs)),
      knobs_(ReadKnobs(kLtxKnobs, request_.knobs)),
      is_condition_pipeline_(RunsConditionPipeline(request_)),
      passes_(MakePasses(*components_, request_, media_)) {
  AddStage(Stage::kEncodeText, kTextShare, 1, &LtxRun::EncodeText);
  // Of a step, as the number of tokens.
  double work = 0;
  for (const Pass& pass : passes_) work += static_cast<double>(pass.steps() * pass.tokens.count());
  for (const Pass& pass : passes_) {
    if (&pass != &passes_.front()) {
      AddStage(Stage::kUpscale, kUpscaleShare, 1, &LtxRun::Upscale);
      BeginPass();
    }
    AddPass(pass, kDenoiseShare * static_cast<double>(pass.steps() * pass.tokens.count()) / work);
  }
  AddDecode(kDecodeShare, *request_.num_frames, &LtxRun::StartDecode);
}

std::vector<LtxRun::Pass> LtxRun::MakePasses(const LtxComponents& components,
                                             const Request& request,
                                             const std::vector<MediaInput>& media) {
  std::vector<Pass> passes;
  for (Request& each : LtxPasses(request)) {
    LtxTokens tokens = LayOutTokens(components.vae->config(), each, media);
    FlowMatchSchedule schedule =
        ValueOrThrow(LtxSchedule(components.sampler.table, each, tokens.grid.count()));
    const int first_step =
        FirstStepAt(static_cast<int>(schedule.timesteps.size()),
                    ReadKnobs(kLtxKnobs, each.knobs).denoise_strength.value_or(1));
    passes.push_back({std::move(each), std::move(tokens), std::move(schedule), first_step});
  }
  return passes;
}

void LtxRun::AddPass(const Pass& pass, double share) {
  if (!media_.empty()) {
    AddStage(Stage::kEncodeMedia, kMediaShare, 1,
             [this, &pass](const RunContext& context) { EncodeConditions(pass, context); });
  }
  AddStage(Stage::kDenoise, share, pass.steps(),
           [this, &pass](const RunContext& context) { Denoise(pass, context); });
}

void LtxRun::Drop(Stage stage) {
  if (stage == Stage::kDenoise) prepared_.clear();
}

void LtxRun::EncodeText(const RunContext& context) {
  // LTXConditionPipeline hides padding from the encoder, the others do not. Cross-attention always
  // leaves it alone.
  state_.text =
      EncodeTexts(Prompts(), is_condition_pipeline_ ? PromptPadding::kMasked : PromptPadding::kSeen,
                  *knobs_.max_sequence_length, context);
  if (media_.empty()) state_.latents = PackLatents(StartLatents(passes_.front()));
  Finish(1, /*is_last=*/true);
}

at::Tensor LtxRun::DrawNoise(const LatentGrid& grid, int64_t frames) {
  return state_.noise.Randn(
      {1, components_->transformer->config().in_channels, frames, grid.height, grid.width},
      at::kFloat, components_->transformer->device());
}

at::Tensor LtxRun::StartLatents(const Pass& pass) {
  const at::Tensor noise = DrawNoise(pass.tokens.grid, pass.tokens.grid.frames);
  if (&pass == &passes_.front()) return noise;
  const float sigma = pass.schedule.sigmas[static_cast<size_t>(pass.first_step)];
  return noise * sigma + state_.latents * (1 - sigma);
}

void LtxRun::EncodeConditions(const Pass& pass, const RunContext& context) {
  const LatentGrid& grid = pass.tokens.grid;
  // LTXImageToVideoPipeline draws the video's noise behind what the VAE draws.
  at::Tensor latents;
  if (is_condition_pipeline_) latents = StartLatents(pass);
  std::vector<at::Tensor> sequence;
  for (size_t i = 0; i < media_.size(); ++i) {
    const LtxConditionPlace& place = pass.tokens.conditions[i];
    const double strength = request_.conditions[i].strength;
    const VideoSize size = {.height = *pass.request.height,
                            .width = *pass.request.width,
                            .num_frames = static_cast<int>(place.frames)};
    const at::Tensor encoded = SampleLtxVideo(vae(), ConditionVideo(media_[i], size),
                                              request_.plan.vae_tiling, state_.noise, context);
    TapTensor(tap_, absl::StrCat("condition_latents_", i), encoded);
    if (!latents.defined()) latents = StartLatents(pass);
    if (place.mixed > 0) {
      const at::Tensor mixed = latents.narrow(2, place.mixed_from, place.mixed);
      mixed.copy_(at::lerp(mixed, encoded.narrow(2, place.added, place.mixed), strength));
    }
    if (place.added > 0) {
      sequence.push_back(PackLatents(
          at::lerp(DrawNoise(grid, place.added), encoded.narrow(2, 0, place.added), strength)));
    }
  }
  sequence.push_back(PackLatents(latents));
  state_.latents = at::cat(sequence, 1);
  if (is_condition_pipeline_ && *knobs_.image_cond_noise_scale > 0)
    state_.condition = state_.latents;
  Finish(1, /*is_last=*/true);
}

void LtxRun::PrepareDenoise(const Pass& pass, const RunContext& context) {
  const LtxVaeConfig& config = vae().config();
  const c10::Device device = components_->transformer->device();
  const at::Tensor positions =
      is_condition_pipeline_
          ? PixelPositions(pass.tokens, config, request_.conditions, *knobs_.frame_rate, device)
          : GridPositions(
                pass.tokens.grid,
                static_cast<double>(config.temporal_compression_ratio) / *knobs_.frame_rate,
                static_cast<double>(config.spatial_compression_ratio), device);
  // Row i of the timestep table is step i; behind them, one for each of the spans that are held.
  std::vector<float> timesteps = pass.schedule.timesteps;
  for (const LtxHeldTokens& held : pass.tokens.held) timesteps.push_back(TimestepOf(held, 1000));
  std::vector<LtxTransformer::Prepared> prepared;
  for (const at::Tensor& text : state_.text) {
    prepared.push_back(components_->transformer->Prepare(
        text, positions, timesteps, prepared.empty() ? nullptr : prepared.data(), context));
  }
  prepared_ = std::move(prepared);
}

float LtxRun::TimestepOf(const LtxHeldTokens& held, float timestep) {
  return std::min(timestep, (1 - held.strength) * 1000);
}

at::Tensor LtxRun::NoisedConditions(const Pass& pass, float timestep) {
  const at::Tensor& noise =
      state_.noise.Randn(state_.latents.sizes(), at::kFloat, state_.latents.device());
  const float level = timestep / 1000;
  const at::Tensor noised =
      state_.condition + noise * *knobs_.image_cond_noise_scale * (level * level);
  std::vector<at::Tensor> parts;
  for (const LtxHeldTokens& held : pass.tokens.held) {
    const bool is_firm = held.strength > 1 - 1e-6f;
    parts.push_back(
        (is_firm ? noised : state_.latents).narrow(1, held.begin, held.end - held.begin));
  }
  return at::cat(parts, 1);
}

void LtxRun::Denoise(const Pass& pass, const RunContext& context) {
  if (prepared_.empty()) PrepareDenoise(pass, context);
  const size_t step = static_cast<size_t>(pass.first_step + state_.step);
  const float timestep = pass.schedule.timesteps[step];
  if (state_.condition.defined()) state_.latents = NoisedConditions(pass, timestep);

  TokenSpans spans;
  for (size_t i = 0; i < pass.tokens.held.size(); ++i) {
    const LtxHeldTokens& held = pass.tokens.held[i];
    const size_t row =
        TimestepOf(held, timestep) < timestep ? pass.schedule.timesteps.size() + i : step;
    spans.push_back({held.begin, held.end, static_cast<int64_t>(row)});
  }
  const at::Tensor prediction =
      PredictLtx(*components_->transformer, prepared_, spans,
                 state_.latents.to(components_->text_encoder->dtype()),
                 {.scale = *request_.guidance_scale, .rescale = *knobs_.guidance_rescale}, context);

  std::vector<at::Tensor> parts;
  for (const LtxHeldTokens& held : pass.tokens.held) {
    const int64_t count = held.end - held.begin;
    parts.push_back(state_.latents.narrow(1, held.begin, count));
    // Tokens wait until the others are as clean as they are.
    if (timestep / 1000 - 1e-6f >= 1 - held.strength) continue;
    float sigma = pass.schedule.sigmas[step], next = pass.schedule.sigmas[step + 1];
    if (is_condition_pipeline_) {
      sigma = TimestepOf(held, timestep) / 1000;
      next = NextLowerSigma(pass.schedule, sigma);
    }
    parts.back() = EulerStep(parts.back(), prediction.narrow(1, held.begin, count), sigma, next);
  }
  state_.latents = parts.size() == 1 ? parts[0] : at::cat(parts, 1);
  const int before = &pass == &passes_.front() ? 0 : passes_.front().steps();
  TapStep(before + state_.step, state_.latents);
  Finish(1, /*is_last=*/step + 1 == pass.schedule.timesteps.size());
}

at::Tensor LtxRun::VideoLatents(const Pass& pass) const {
  const LatentGrid& grid = pass.tokens.grid;
  const at::Tensor video = state_.latents.narrow(1, pass.tokens.added, grid.count());
  return UnpackLatents(video, grid.frames, grid.height, grid.width);
}

void LtxRun::Upscale(const RunContext& context) {
  const at::Tensor large = UpsampleLtxLatents(vae(), *components_->latent_upsampler, knobs_,
                                              VideoLatents(passes_.front()), tap_, context);
  state_.latents = NormalizeLtxLatents(vae(), large);
  state_.condition.reset();
  // The published recipe seeds a generator of its own for each pass.
  state_.noise = NoiseSource(*request_.seed);
  if (media_.empty()) state_.latents = PackLatents(StartLatents(passes_.back()));
  Finish(1, /*is_last=*/true);
}

std::unique_ptr<DecodeStream> LtxRun::StartDecode() {
  const at::Tensor latents = DenormalizeLtxLatents(vae(), VideoLatents(passes_.back()));
  state_.latents = latents.to(components_->text_encoder->dtype());
  return StartLtxDecode(vae(), knobs_, request_.plan.vae_tiling, state_.latents, state_.noise,
                        tap_);
}

}  // namespace kino::engine
