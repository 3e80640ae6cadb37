#include "engine/models/ltx/upscale_run.h"

#include <utility>

#include "engine/core/status.h"
#include "engine/models/common/component_loading.h"
#include "engine/models/ltx/latents.h"

namespace kino::engine {
namespace {

// Of a typical run's time.
constexpr double kMediaShare = 0.2;
constexpr double kUpscaleShare = 0.1;
constexpr double kDecodeShare = 0.7;

}  // namespace

absl::StatusOr<std::shared_ptr<LtxLatentUpsampler>> LoadLatentUpsampler(
    const PipelineOptions& options, EngineShared& shared, const LtxVae& vae) {
  KINO_ASSIGN_OR_RETURN(std::shared_ptr<LtxLatentUpsampler> upsampler,
                        FolderComponent<LtxLatentUpsampler>(options, shared, "latent_upsampler"));
  KINO_RETURN_IF_ERROR(CheckFit(options, "the latent upsampler's in_channels",
                                upsampler->config().in_channels, "the VAE's latent_channels",
                                vae.config().latent_channels));
  return upsampler;
}

absl::StatusOr<std::unique_ptr<Pipeline>> LoadLtxUpscalePipeline(const PipelineOptions& options,
                                                                 EngineShared& shared) {
  auto components = std::make_shared<LtxUpscaleComponents>();
  KINO_ASSIGN_OR_RETURN(components->vae, FolderComponent<LtxVae>(options, shared, "vae"));
  KINO_ASSIGN_OR_RETURN(components->latent_upsampler,
                        LoadLatentUpsampler(options, shared, *components->vae));
  return MakePipeline<LtxUpscaleRun>(
      std::shared_ptr<const LtxUpscaleComponents>(components),
      {{"vae", components->vae, {Stage::kEncodeMedia, Stage::kDecode}, true},
       {"latent_upsampler", components->latent_upsampler, {Stage::kUpscale}, false}},
      shared);
}

LtxUpscaleRun::LtxUpscaleRun(Inputs inputs)
    : FamilyRun(std::move(inputs)), knobs_(ReadKnobs(kLtxKnobs, request_.knobs)) {
  const VideoSize size = {
      .height = *request_.height, .width = *request_.width, .num_frames = *request_.num_frames};
  AddStage(Stage::kEncodeMedia, kMediaShare, 1, &LtxUpscaleRun::EncodeMedia);
  AddStage(Stage::kUpscale, kUpscaleShare, 1, &LtxUpscaleRun::Upscale);
  AddDecode(kDecodeShare, components_->latent_upsampler->config().Upsampled(size).num_frames,
            &LtxUpscaleRun::StartDecode);
}

void LtxUpscaleRun::EncodeMedia(const RunContext& context) {
  const VideoSize size = {
      .height = *request_.height, .width = *request_.width, .num_frames = *request_.num_frames};
  state_.latents = SampleLtxVideo(*components_->vae, ConditionVideo(media_.front(), size),
                                  request_.plan.vae_tiling, state_.noise, context);
  Finish(1, /*is_last=*/true);
}

void LtxUpscaleRun::Upscale(const RunContext& context) {
  state_.latents = UpsampleLtxLatents(*components_->vae, *components_->latent_upsampler, knobs_,
                                      state_.latents, tap_, context);
  Finish(1, /*is_last=*/true);
}

std::unique_ptr<DecodeStream> LtxUpscaleRun::StartDecode() {
  return StartLtxDecode(*components_->vae, knobs_, request_.plan.vae_tiling, state_.latents,
                        state_.noise, tap_);
}

}  // namespace kino::engine
