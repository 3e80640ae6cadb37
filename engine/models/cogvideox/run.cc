#include "engine/models/cogvideox/run.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>

#include "engine/core/status_bridge.h"
#include "engine/models/common/condition_frames.h"
#include "engine/models/common/guidance.h"
#include "engine/models/common/latents.h"
#include "engine/samplers/first_step.h"

namespace kino::engine {
namespace {

// Of a typical run's time.
constexpr double kTextShare = 0.01, kMediaShare = 0.05, kDenoiseShare = 0.84, kDecodeShare = 0.1;

}  // namespace

CogVideoXRun::CogVideoXRun(Inputs inputs)
    : FamilyRun(std::move(inputs)),
      knobs_(ReadKnobs(kCogVideoXKnobs, request_.knobs)),
      strength_(request_.conditions.empty() ? 1 : request_.conditions[0].strength),
      schedule_(ValueOrThrow(
          MakeDdimSchedule(components_->sampler, *request_.num_inference_steps, strength_))),
      solver_(*knobs_.scheduler == kOwnScheduler   ? components_->sampler.solver
              : *knobs_.scheduler == kDpmScheduler ? DdimSolver::kDpm
                                                   : DdimSolver::kDdim) {
  const CogVideoXVaeConfig& vae = components_->vae->config();
  const int frames = vae.latent_frames(*request_.num_frames);
  const int patch = components_->transformer->config().patch_frames();
  filling_frames_ = (patch - frames % patch) % patch;
  grid_ = {.frames = frames + filling_frames_,
           .height = *request_.height / vae.spatial_ratio(),
           .width = *request_.width / vae.spatial_ratio()};
  const int steps = static_cast<int>(schedule_.size());
  AddStage(Stage::kEncodeText, kTextShare, 1, &CogVideoXRun::EncodeText);
  if (!media_.empty()) AddStage(Stage::kEncodeMedia, kMediaShare, 1, &CogVideoXRun::EncodeMedia);
  AddStage(Stage::kDenoise, kDenoiseShare, steps, &CogVideoXRun::Denoise);
  AddDecode(kDecodeShare, vae.frames(frames), &CogVideoXRun::StartDecode);
}

at::Tensor CogVideoXRun::DrawNoise() {
  return state_.noise.Randn(
      {1, grid_.frames, components_->vae->config().latent_channels, grid_.height, grid_.width},
      components_->text_encoder->dtype(), components_->transformer->device());
}

void CogVideoXRun::EncodeText(const RunContext& context) {
  state_.text = EncodeTexts(Prompts(), PromptPadding::kKept, *knobs_.max_sequence_length, context);
  if (media_.empty()) state_.latents = DrawNoise();
  Finish(1, /*is_last=*/true);
}

void CogVideoXRun::EncodeMedia(const RunContext& context) {
  const CogVideoXVaeConfig& vae = components_->vae->config();
  const ConditionKind kind = request_.conditions[0].kind;
  const bool is_image = kind == ConditionKind::kImage,
             is_control = kind == ConditionKind::kControlVideo;
  // Of a control video the noise is drawn first, and nothing for the video itself.
  if (is_control) state_.latents = DrawNoise();
  const at::Tensor moments =
      components_->vae->Encode(ConditionFrames(media_.front(), 0, media_.front().num_frames,
                                               *request_.height, *request_.width),
                               request_.plan.vae_tiling, context);
  const double scale =
      is_image && vae.invert_scale_latents ? 1 / vae.scaling_factor : vae.scaling_factor;
  const at::Tensor encoded =
      is_control ? PosteriorMode(moments) : SamplePosterior(moments, state_.noise);
  at::Tensor latents = encoded.to(components_->text_encoder->dtype()).transpose(1, 2) * scale;
  // Behind an image there is nothing to be seen.
  if (is_image) latents = at::constant_pad_nd(latents, {0, 0, 0, 0, 0, 0, 0, grid_.frames - 1});
  if (!is_control) state_.latents = DrawNoise();
  if (is_image || is_control) {
    state_.condition = latents;
  } else {
    state_.latents = AddNoise(latents, state_.latents, schedule_.front().alpha);
  }
  Finish(1, /*is_last=*/true);
}

void CogVideoXRun::Denoise(const RunContext& context) {
  if (!prepared_) {
    std::vector<float> timesteps;
    for (const DdimStepLevels& levels : schedule_)
      timesteps.push_back(static_cast<float>(levels.timestep));
    prepared_ = components_->transformer->Prepare(state_.text, grid_, timesteps, context);
  }
  const DdimStepLevels& levels = schedule_[static_cast<size_t>(state_.step)];
  at::Tensor input = state_.latents;
  if (state_.condition.defined()) input = at::cat({input, state_.condition}, 2);
  if (guided()) input = input.expand({2, -1, -1, -1, -1});
  at::Tensor prediction =
      components_->transformer->Forward(*prepared_, state_.step, input, context).to(at::kFloat);
  if (guided()) {
    double scale = *request_.guidance_scale;
    const int all = *request_.num_inference_steps;
    if (*knobs_.use_dynamic_cfg == 1)
      scale = DynamicGuidance(scale, levels.timestep, all - FirstStepAt(all, strength_));
    prediction = Guide(prediction, scale);
  }
  const at::Tensor next =
      solver_ == DdimSolver::kDdim
          ? DdimStep(state_.latents, prediction, levels)
          : DpmSolverStep(state_.latents, prediction, state_.denoised, schedule_, state_.step, [&] {
              return state_.noise.Randn(state_.latents.sizes(), state_.latents.scalar_type(),
                                        state_.latents.device());
            });
  state_.latents = next.to(state_.latents.scalar_type());
  TapStep(state_.step, state_.latents);
  Finish(1, /*is_last=*/state_.step + 1 == static_cast<int>(schedule_.size()));
}

std::unique_ptr<DecodeStream> CogVideoXRun::StartDecode() {
  const int64_t frames = grid_.frames - filling_frames_;
  const at::Tensor latents = state_.latents.narrow(1, filling_frames_, frames).transpose(1, 2);
  state_.latents = (1 / components_->vae->config().scaling_factor * latents)
                       .to(components_->vae->dtype())
                       .contiguous();
  TapTensor(tap_, "latents", state_.latents);
  return components_->vae->Decode(state_.latents, request_.plan.vae_tiling);
}

}  // namespace kino::engine
