#include "engine/models/ltx/run.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/core/status_bridge.h"
#include "engine/models/common/condition_frames.h"
#include "engine/models/common/guidance.h"
#include "engine/models/common/latents.h"
#include "engine/models/common/text_stage.h"
#include "engine/models/ltx/describe.h"
#include "engine/samplers/first_step.h"

namespace kino::engine {
namespace {

// Of a typical run's time.
constexpr double kTextShare = 0.02;
constexpr double kMediaShare = 0.02;
constexpr double kDenoiseShare = 0.82;
constexpr double kDecodeShare = 0.14;

}  // namespace

LtxRun::LtxRun(std::shared_ptr<const LtxComponents> components, EmbeddingCache* embeddings,
               const Request& request, std::vector<MediaInput> media, Tap tap)
    : StagedRun(request),
      knobs_(ReadKnobs(kLtxKnobs, request.knobs)),
      components_(std::move(components)),
      embeddings_(embeddings),
      media_(std::move(media)),
      tap_(std::move(tap)),
      is_condition_pipeline_(RunsConditionPipeline(request)),
      tokens_(LayOutTokens(vae().config(), request, media_)),
      schedule_(
          ValueOrThrow(LtxSchedule(components_->sampler.table, request, tokens_.grid.count()))),
      first_step_(FirstStepAt(static_cast<int>(schedule_.timesteps.size()),
                              knobs_.denoise_strength.value_or(1))) {
  AddStage(Stage::kEncodeText, kTextShare, 1, &LtxRun::EncodeText);
  if (!media_.empty()) AddStage(Stage::kEncodeMedia, kMediaShare, 1, &LtxRun::EncodeConditions);
  AddStage(Stage::kDenoise, kDenoiseShare,
           static_cast<int>(schedule_.timesteps.size()) - first_step_, &LtxRun::Denoise);
  AddStage(Stage::kDecode, kDecodeShare, *request_.num_frames, &LtxRun::Decode);
}

void LtxRun::Drop(Stage stage) {
  if (stage == Stage::kDenoise) prepared_.clear();
  if (stage == Stage::kDecode) decoder_.reset();
}

void LtxRun::EncodeText(const RunContext& context) {
  // LTXConditionPipeline hides padding from the encoder, the others do not. Cross-attention always
  // leaves it alone.
  state_.text = EncodePrompts(
      {.tokenizer = components_->tokenizer.get(),
       .encoder = components_->text_encoder.get(),
       .cache = embeddings_,
       .padding = is_condition_pipeline_ ? PromptPadding::kMasked : PromptPadding::kSeen,
       .max_length = *knobs_.max_sequence_length,
       .device = components_->transformer->device()},
      Prompts(), tap_, context);
  if (media_.empty()) state_.latents = PackLatents(DrawNoise(tokens_.grid.frames));
  Finish(1, /*is_last=*/true);
}

at::Tensor LtxRun::DrawNoise(int64_t frames) {
  return state_.noise.Randn({1, components_->transformer->config().in_channels, frames,
                             tokens_.grid.height, tokens_.grid.width},
                            at::kFloat, components_->transformer->device());
}

at::Tensor LtxRun::EncodeCondition(size_t index, const RunContext& context) {
  const int height = *request_.height, width = *request_.width;
  const LtxVideoSource video = {.frames = tokens_.conditions[index].frames,
                                .height = height,
                                .width = width,
                                .read = [&](int64_t first, int64_t count) {
                                  return ConditionFrames(media_[index], first, count, height,
                                                         width);
                                }};
  const at::Tensor sample = SamplePosterior(
      vae().Encode(video, LtxVaeTiling::Of(request_.plan.vae_tiling), context), state_.noise);
  return (sample.to(at::kFloat) - ByChannel(vae().latents_mean())) / ByChannel(vae().latents_std());
}

void LtxRun::EncodeConditions(const RunContext& context) {
  // LTXImageToVideoPipeline draws the video's noise behind what the VAE draws.
  at::Tensor latents;
  if (is_condition_pipeline_) latents = DrawNoise(tokens_.grid.frames);
  std::vector<at::Tensor> sequence;
  for (size_t i = 0; i < media_.size(); ++i) {
    const at::Tensor encoded = EncodeCondition(i, context);
    if (tap_) TapTensor(tap_, absl::StrCat("condition_latents_", i), encoded);
    if (!latents.defined()) latents = DrawNoise(tokens_.grid.frames);
    const LtxConditionPlace& place = tokens_.conditions[i];
    const double strength = request_.conditions[i].strength;
    if (place.mixed > 0) {
      const at::Tensor mixed = latents.narrow(2, place.mixed_from, place.mixed);
      mixed.copy_(at::lerp(mixed, encoded.narrow(2, place.added, place.mixed), strength));
    }
    if (place.added > 0) {
      sequence.push_back(PackLatents(
          at::lerp(DrawNoise(place.added), encoded.narrow(2, 0, place.added), strength)));
    }
  }
  sequence.push_back(PackLatents(latents));
  state_.latents = at::cat(sequence, 1);
  if (is_condition_pipeline_ && *knobs_.image_cond_noise_scale > 0)
    state_.condition = state_.latents;
  Finish(1, /*is_last=*/true);
}

void LtxRun::PrepareDenoise(const RunContext& context) {
  const LtxVaeConfig& config = vae().config();
  const c10::Device device = components_->transformer->device();
  const at::Tensor positions =
      is_condition_pipeline_
          ? PixelPositions(tokens_, config, request_.conditions, *knobs_.frame_rate, device)
          : GridPositions(
                tokens_.grid,
                static_cast<double>(config.temporal_compression_ratio) / *knobs_.frame_rate,
                static_cast<double>(config.spatial_compression_ratio), device);
  // Row i of the timestep table is step i; behind them, one for each of the spans that are held.
  std::vector<float> timesteps = schedule_.timesteps;
  for (const LtxHeldTokens& held : tokens_.held) timesteps.push_back(TimestepOf(held, 1000));
  std::vector<LtxTransformer::Prepared> prepared;
  for (const at::Tensor& text : state_.text) {
    prepared.push_back(components_->transformer->Prepare(
        text, positions, timesteps, prepared.empty() ? nullptr : prepared.data(), context));
  }
  prepared_ = std::move(prepared);
}

float LtxRun::TimestepOf(const LtxHeldTokens& held, float timestep) const {
  return std::min(timestep, (1 - held.strength) * 1000);
}

at::Tensor LtxRun::NoisedConditions(float timestep) {
  const at::Tensor& noise =
      state_.noise.Randn(state_.latents.sizes(), at::kFloat, state_.latents.device());
  const float level = timestep / 1000;
  const at::Tensor noised =
      state_.condition + noise * *knobs_.image_cond_noise_scale * (level * level);
  std::vector<at::Tensor> parts;
  for (const LtxHeldTokens& held : tokens_.held) {
    const bool is_firm = held.strength > 1 - 1e-6f;
    parts.push_back(
        (is_firm ? noised : state_.latents).narrow(1, held.begin, held.end - held.begin));
  }
  return at::cat(parts, 1);
}

void LtxRun::Denoise(const RunContext& context) {
  if (prepared_.empty()) PrepareDenoise(context);
  const size_t step = static_cast<size_t>(first_step_ + state_.step);
  const float timestep = schedule_.timesteps[step];
  if (state_.condition.defined()) state_.latents = NoisedConditions(timestep);

  TokenSpans spans;
  for (size_t i = 0; i < tokens_.held.size(); ++i) {
    const LtxHeldTokens& held = tokens_.held[i];
    const size_t row =
        TimestepOf(held, timestep) < timestep ? schedule_.timesteps.size() + i : step;
    spans.push_back({held.begin, held.end, static_cast<int64_t>(row)});
  }
  std::vector<const LtxTransformer::Prepared*> rows;
  for (const LtxTransformer::Prepared& prepared : prepared_) rows.push_back(&prepared);
  const at::Tensor input = rows.size() == 1 ? state_.latents : state_.latents.expand({2, -1, -1});
  const at::Tensor predictions =
      components_->transformer
          ->Forward(rows, spans, input.to(components_->text_encoder->dtype()), context)
          .to(at::kFloat);
  at::Tensor prediction = predictions;
  if (guided()) {
    const at::Tensor positive = predictions.narrow(0, 1, 1);
    prediction = Guide(predictions.narrow(0, 0, 1), positive, *request_.guidance_scale);
    const double rescale = *knobs_.guidance_rescale;
    if (rescale > 0) prediction = RescaleGuidance(prediction, positive, rescale);
  }

  std::vector<at::Tensor> parts;
  for (const LtxHeldTokens& held : tokens_.held) {
    const int64_t count = held.end - held.begin;
    parts.push_back(state_.latents.narrow(1, held.begin, count));
    // Tokens wait until the others are as clean as they are.
    if (timestep / 1000 - 1e-6f >= 1 - held.strength) continue;
    float sigma = schedule_.sigmas[step], next = schedule_.sigmas[step + 1];
    if (is_condition_pipeline_) {
      sigma = TimestepOf(held, timestep) / 1000;
      next = NextLowerSigma(schedule_, sigma);
    }
    parts.back() = EulerStep(parts.back(), prediction.narrow(1, held.begin, count), sigma, next);
  }
  state_.latents = parts.size() == 1 ? parts[0] : at::cat(parts, 1);
  if (tap_) TapTensor(tap_, absl::StrFormat("denoise_%03d", state_.step), state_.latents);
  Finish(1, /*is_last=*/step + 1 == schedule_.timesteps.size());
}

void LtxRun::PrepareDecode() {
  const LatentGrid& grid = tokens_.grid;
  const at::Tensor video = state_.latents.narrow(1, tokens_.added, grid.count());
  at::Tensor latents = DenormalizeLatents(
      UnpackLatents(video, grid.frames, grid.height, grid.width), ByChannel(vae().latents_mean()),
      ByChannel(vae().latents_std()), vae().config().scaling_factor);
  latents = latents.to(components_->text_encoder->dtype());
  at::Tensor timestep;
  if (vae().config().timestep_conditioning) {
    const at::Tensor noise =
        state_.noise.Randn(latents.sizes(), latents.scalar_type(), latents.device());
    const at::TensorOptions options = latents.options();
    timestep =
        at::tensor({*knobs_.decode_timestep}, at::TensorOptions().dtype(at::kDouble)).to(options);
    const at::Tensor scale =
        at::tensor({*knobs_.decode_noise_scale}, at::TensorOptions().dtype(at::kDouble))
            .to(options);
    latents = (1 - scale) * latents + scale * noise;
  }
  state_.latents = latents.to(vae().dtype()).contiguous();
  if (tap_) TapTensor(tap_, "latents", state_.latents);
  decoder_ = vae().Decode(state_.latents, {.timestep = timestep,
                                           .noise_generator = state_.noise.global(),
                                           .tiling = LtxVaeTiling::Of(request_.plan.vae_tiling)});
}

void LtxRun::Decode(const RunContext& context, const FrameSink& sink) {
  if (decoder_ == nullptr) PrepareDecode();
  DecodeFrames(*decoder_, context, sink);
}

}  // namespace kino::engine
