#include "engine/models/cogvideox/run.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include "absl/strings/str_format.h"
#include "engine/core/status_bridge.h"
#include "engine/models/common/condition_frames.h"
#include "engine/models/common/guidance.h"
#include "engine/models/common/latents.h"
#include "engine/models/common/text_stage.h"

namespace kino::engine {
namespace {

// Of a typical run's time.
constexpr double kTextShare = 0.01;
constexpr double kMediaShare = 0.05;
constexpr double kDenoiseShare = 0.84;
constexpr double kDecodeShare = 0.1;

DdimSolver SolverOf(const CogVideoXKnobs& knobs, const DdimConfig& sampler) {
  if (knobs.scheduler == kDdimScheduler) return DdimSolver::kDdim;
  return knobs.scheduler == kDpmScheduler ? DdimSolver::kDpm : sampler.solver;
}

}  // namespace

CogVideoXRun::CogVideoXRun(std::shared_ptr<const CogVideoXComponents> components,
                           EmbeddingCache* embeddings, const Request& request,
                           std::vector<MediaInput> media, Tap tap)
    : StagedRun(request),
      knobs_(ReadKnobs(kCogVideoXKnobs, request.knobs)),
      components_(std::move(components)),
      embeddings_(embeddings),
      media_(std::move(media)),
      tap_(std::move(tap)),
      schedule_(ValueOrThrow(MakeCogVideoXSchedule(components_->sampler, request_))),
      solver_(SolverOf(knobs_, components_->sampler)) {
  const CogVideoXVaeConfig& vae = components_->vae->config();
  const int frames = vae.latent_frames(*request_.num_frames);
  const int patch = components_->transformer->config().patch_frames();
  filling_frames_ = (patch - frames % patch) % patch;
  grid_ = {.frames = frames + filling_frames_,
           .height = *request_.height / vae.spatial_ratio(),
           .width = *request_.width / vae.spatial_ratio()};
  AddStage(Stage::kEncodeText, kTextShare, 1,
           [this](const RunContext& context, const FrameSink&) { EncodeText(context); });
  if (!media_.empty()) {
    AddStage(Stage::kEncodeMedia, kMediaShare, 1,
             [this](const RunContext& context, const FrameSink&) { EncodeMedia(context); });
  }
  AddStage(Stage::kDenoise, kDenoiseShare,
           static_cast<int>(schedule_.steps.size()) - schedule_.first,
           [this](const RunContext& context, const FrameSink&) { Denoise(context); });
  AddStage(Stage::kDecode, kDecodeShare, vae.frames(frames),
           [this](const RunContext& context, const FrameSink& sink) { Decode(context, sink); });
}

void CogVideoXRun::Drop(Stage stage) {
  if (stage == Stage::kDenoise) prepared_.reset();
  if (stage == Stage::kDecode) decoder_.reset();
}

at::Tensor CogVideoXRun::DrawNoise() {
  return state_.noise.Randn(
      {1, grid_.frames, components_->vae->config().latent_channels, grid_.height, grid_.width},
      components_->text_encoder->dtype(), components_->transformer->device());
}

void CogVideoXRun::EncodeText(const RunContext& context) {
  state_.text = EncodePrompts({.tokenizer = components_->tokenizer.get(),
                               .encoder = components_->text_encoder.get(),
                               .cache = embeddings_,
                               .padding = PromptPadding::kKept,
                               .max_length = *knobs_.max_sequence_length,
                               .device = components_->transformer->device()},
                              Prompts(), tap_, context);
  if (media_.empty()) state_.latents = DrawNoise();
  Finish(1, /*is_last=*/true);
}

at::Tensor CogVideoXRun::Scaled(const at::Tensor& latents) const {
  const CogVideoXVaeConfig& vae = components_->vae->config();
  const bool divides = vae.invert_scale_latents && request_.task == Task::kImageToVideo;
  return latents.to(components_->text_encoder->dtype()).permute({0, 2, 1, 3, 4}) *
         (divides ? 1 / vae.scaling_factor : vae.scaling_factor);
}

void CogVideoXRun::EncodeMedia(const RunContext& context) {
  const ConditionKind kind = request_.conditions[0].kind;
  const bool is_image = kind == ConditionKind::kImage;
  // Of a control video the noise is drawn first, and nothing for the video itself.
  if (kind == ConditionKind::kControlVideo) state_.latents = DrawNoise();
  const at::Tensor moments = components_->vae->Encode(
      ConditionFrames(media_.front(), 0, is_image ? 1 : *request_.num_frames, *request_.height,
                      *request_.width),
      request_.plan.vae_tiling, context);
  const at::Tensor seen =
      Scaled(kind == ConditionKind::kControlVideo ? PosteriorMode(moments)
                                                  : SamplePosterior(moments, state_.noise));
  if (tap_) TapTensor(tap_, "condition_latents", seen);
  if (kind == ConditionKind::kVideo) {
    const DdimStepLevels& first = schedule_.steps[static_cast<size_t>(schedule_.first)];
    state_.latents = AddNoise(seen, DrawNoise(), first.alpha);
  } else if (is_image) {
    std::vector<int64_t> rest = seen.sizes().vec();
    rest[1] = grid_.frames - 1;
    state_.condition = at::cat({seen, at::zeros(rest, seen.options())}, 1);
    state_.latents = DrawNoise();
  } else {
    state_.condition = seen;
  }
  Finish(1, /*is_last=*/true);
}

void CogVideoXRun::Denoise(const RunContext& context) {
  if (!prepared_) {
    std::vector<float> timesteps;
    for (size_t i = static_cast<size_t>(schedule_.first); i < schedule_.steps.size(); ++i)
      timesteps.push_back(static_cast<float>(schedule_.steps[i].timestep));
    prepared_ = components_->transformer->Prepare(state_.text, grid_, timesteps, context);
  }
  const int step = schedule_.first + state_.step;
  const DdimStepLevels& levels = schedule_.steps[static_cast<size_t>(step)];
  at::Tensor input = state_.latents;
  if (state_.condition.defined()) input = at::cat({input, state_.condition}, 2);
  if (guided()) input = input.expand({2, -1, -1, -1, -1});
  at::Tensor prediction =
      components_->transformer->Forward(*prepared_, state_.step, input, context).to(at::kFloat);
  if (guided()) {
    double scale = *request_.guidance_scale;
    if (*knobs_.use_dynamic_cfg == 1) {
      scale =
          DynamicGuidance(scale, levels.timestep, *request_.num_inference_steps - schedule_.first);
    }
    prediction = Guide(prediction.narrow(0, 0, 1), prediction.narrow(0, 1, 1), scale);
  }
  const at::Tensor next =
      solver_ == DdimSolver::kDdim
          ? DdimStep(state_.latents, prediction, levels)
          : DpmSolverStep(state_.latents, prediction, state_.denoised, schedule_.steps, step, [&] {
              return state_.noise.Randn(state_.latents.sizes(), state_.latents.scalar_type(),
                                        state_.latents.device());
            });
  state_.latents = next.to(state_.latents.scalar_type());
  if (tap_) TapTensor(tap_, absl::StrFormat("denoise_%03d", state_.step), state_.latents);
  Finish(1, /*is_last=*/step + 1 == static_cast<int>(schedule_.steps.size()));
}

void CogVideoXRun::PrepareDecode() {
  const at::Tensor latents =
      state_.latents.narrow(1, filling_frames_, grid_.frames - filling_frames_)
          .permute({0, 2, 1, 3, 4});
  state_.latents = (1 / components_->vae->config().scaling_factor * latents)
                       .to(components_->vae->dtype())
                       .contiguous();
  if (tap_) TapTensor(tap_, "latents", state_.latents);
  decoder_ = components_->vae->Decode(state_.latents, request_.plan.vae_tiling);
}

void CogVideoXRun::Decode(const RunContext& context, const FrameSink& sink) {
  if (decoder_ == nullptr) PrepareDecode();
  DecodeFrames(*decoder_, context, sink);
}

}  // namespace kino::engine
