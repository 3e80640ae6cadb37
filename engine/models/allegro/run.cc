#include "engine/models/allegro/run.h"

#include <ATen/TensorOperators.h>

#include "engine/core/status_bridge.h"
#include "engine/models/allegro/knobs.h"
#include "engine/models/common/guidance.h"
#include "engine/text/caption_cleaning.h"

namespace kino::engine {
namespace {

// Of a typical run's time.
constexpr double kTextShare = 0.01, kDenoiseShare = 0.89, kDecodeShare = 0.1;

// Of the latents for so many frames; the VAE may give some more than are wanted.
int64_t LatentFrames(int64_t frames, int64_t ratio) {
  const auto up = [ratio](int64_t count) { return (count + ratio - 1) / ratio; };
  return frames % 2 == 0 ? up(frames) : up(frames - 1) + 1;
}

}  // namespace

AllegroRun::AllegroRun(Inputs inputs)
    : FamilyRun(std::move(inputs)),
      schedule_(ValueOrThrow(MakeSchedule(components_->sampler, *request_.num_inference_steps))) {
  const AllegroVaeConfig& vae = components_->vae->config();
  grid_ = {.frames = LatentFrames(*request_.num_frames, vae.temporal_compression_ratio),
           .height = *request_.height / vae.spatial_ratio(),
           .width = *request_.width / vae.spatial_ratio()};
  AddStage(Stage::kEncodeText, kTextShare, 1, &AllegroRun::EncodeText);
  AddStage(Stage::kDenoise, kDenoiseShare, static_cast<int>(schedule_.timesteps.size()),
           &AllegroRun::Denoise);
  AddDecode(kDecodeShare, *request_.num_frames, &AllegroRun::StartDecode);
}

void AllegroRun::EncodeText(const RunContext& context) {
  const AllegroKnobs knobs = ReadKnobs(kAllegroKnobs, request_.knobs);
  std::vector<std::optional<std::string>> prompts = Prompts();
  for (std::optional<std::string>& prompt : prompts)
    prompt = *knobs.clean_caption == 1 ? CleanCaption(*prompt) : LowerCaption(*prompt);
  state_.text = EncodeTexts(prompts, PromptPadding::kMasked, *knobs.max_sequence_length, context);
  state_.latents = ScaleNoise(
      state_.noise.Randn({1, components_->transformer->config().in_channels, grid_.frames,
                          grid_.height, grid_.width},
                         components_->text_encoder->dtype(), components_->transformer->device()),
      schedule_);
  Finish(1, /*is_last=*/true);
}

void AllegroRun::Denoise(const RunContext& context) {
  if (!prepared_) {
    prepared_ = components_->transformer->Prepare(state_.text, grid_, schedule_.timesteps, context);
  }
  const size_t step = static_cast<size_t>(state_.step);
  const float sigma = schedule_.sigmas[step];
  const at::Tensor scaled = ScaleModelInput(state_.latents, sigma);
  at::Tensor prediction = components_->transformer->Forward(
      *prepared_, state_.step, guided() ? scaled.expand({2, -1, -1, -1, -1}) : scaled, context);
  if (guided()) prediction = Guide(prediction, *request_.guidance_scale);
  // The last step draws as well, and adds nothing of it.
  const at::Tensor noise =
      state_.noise.Randn(prediction.sizes(), prediction.scalar_type(), prediction.device());
  state_.latents = EulerAncestralStep(components_->sampler.prediction, state_.latents, prediction,
                                      noise, sigma, schedule_.sigmas[step + 1]);
  TapStep(state_.step, state_.latents);
  Finish(1, /*is_last=*/step + 1 == schedule_.timesteps.size());
}

std::unique_ptr<DecodeStream> AllegroRun::StartDecode() {
  const AllegroVae& vae = *components_->vae;
  state_.latents = state_.latents.to(vae.dtype()) * (1 / vae.config().scaling_factor);
  TapTensor(tap_, "latents", state_.latents);
  VaeTileSizes tiles = vae.config().tiles();
  if (request_.plan.vae_tiling) tiles = tiles.With(*request_.plan.vae_tiling);
  return vae.Decode(state_.latents, tiles, *request_.num_frames);
}

}  // namespace kino::engine
