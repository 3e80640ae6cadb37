#include "engine/models/mochi/run.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include "engine/core/status_bridge.h"
#include "engine/models/common/guidance.h"
#include "engine/models/common/latents.h"
#include "engine/models/mochi/describe.h"
#include "engine/models/mochi/knobs.h"

namespace kino::engine {
namespace {

// Of a typical run's time.
constexpr double kTextShare = 0.01;
constexpr double kDenoiseShare = 0.89;
constexpr double kDecodeShare = 0.1;

}  // namespace

MochiRun::MochiRun(Inputs inputs)
    : FamilyRun(std::move(inputs)),
      schedule_(ValueOrThrow(MochiSchedule(components_->sampler, request_))) {
  const MochiVaeConfig& vae = components_->vae->config();
  grid_ = {.frames = (*request_.num_frames - 1) / vae.temporal_ratio() + 1,
           .height = *request_.height / vae.spatial_ratio(),
           .width = *request_.width / vae.spatial_ratio()};
  AddStage(Stage::kEncodeText, kTextShare, 1, &MochiRun::EncodeText);
  AddStage(Stage::kDenoise, kDenoiseShare, static_cast<int>(schedule_.timesteps.size()),
           &MochiRun::Denoise);
  AddDecode(kDecodeShare, *request_.num_frames, &MochiRun::StartDecode);
}

void MochiRun::EncodeText(const RunContext& context) {
  std::vector<std::optional<std::string>> prompts = Prompts();
  for (std::optional<std::string>& prompt : prompts) {
    if (components_->force_zeros_for_empty_prompt && prompt == "") prompt.reset();
  }
  state_.text = EncodeTexts(prompts, PromptPadding::kMasked,
                            *ReadKnobs(kMochiKnobs, request_.knobs).max_sequence_length, context);
  // Drawn in float32, kept in the dtype of the text states.
  state_.latents = state_.noise
                       .Randn({1, components_->transformer->config().in_channels, grid_.frames,
                               grid_.height, grid_.width},
                              at::kFloat, components_->transformer->device())
                       .to(components_->text_encoder->dtype());
  Finish(1, /*is_last=*/true);
}

void MochiRun::Denoise(const RunContext& context) {
  if (!prepared_) {
    prepared_ = components_->transformer->Prepare(state_.text, grid_, schedule_.timesteps, context);
  }
  const size_t step = static_cast<size_t>(state_.step);
  const at::Tensor input = guided() ? state_.latents.expand({2, -1, -1, -1, -1}) : state_.latents;
  at::Tensor prediction =
      components_->transformer->Forward(*prepared_, state_.step, input, context).to(at::kFloat);
  if (guided()) prediction = Guide(prediction, *request_.guidance_scale);
  state_.latents =
      EulerStep(state_.latents, prediction, schedule_.sigmas[step], schedule_.sigmas[step + 1])
          .to(state_.latents.scalar_type());
  TapStep(state_.step, state_.latents);
  Finish(1, /*is_last=*/step + 1 == schedule_.timesteps.size());
}

std::unique_ptr<DecodeStream> MochiRun::StartDecode() {
  const MochiVaeConfig& config = components_->vae->config();
  // In the latents' dtype, as diffusers has it.
  const auto by_channel = [&](const std::vector<double>& values, double none) {
    const at::TensorOptions options = at::TensorOptions().dtype(at::kDouble);
    const at::Tensor all = values.empty() ? at::tensor(std::vector<double>{none}, options)
                                          : at::tensor(values, options);
    return ByChannel(all).to(state_.latents.options());
  };
  state_.latents = DenormalizeLatents(state_.latents, by_channel(config.latents_mean, 0),
                                      by_channel(config.latents_std, 1), config.scaling_factor)
                       .to(components_->vae->dtype());
  TapTensor(tap_, "latents", state_.latents);
  std::optional<TileGrid> grid;
  if (request_.plan.vae_tiling) grid = kMochiTiles.With(*request_.plan.vae_tiling).grid();
  return components_->vae->Decode(state_.latents, grid);
}

}  // namespace kino::engine
