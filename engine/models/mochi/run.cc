#include "engine/models/mochi/run.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include "absl/strings/str_format.h"
#include "engine/core/status_bridge.h"
#include "engine/models/common/guidance.h"
#include "engine/models/common/latents.h"
#include "engine/models/common/text_stage.h"
#include "engine/models/mochi/describe.h"
#include "engine/models/mochi/knobs.h"

namespace kino::engine {
namespace {

// Of a typical run's time.
constexpr double kTextShare = 0.01;
constexpr double kDenoiseShare = 0.89;
constexpr double kDecodeShare = 0.1;

}  // namespace

MochiRun::MochiRun(std::shared_ptr<const MochiComponents> components, EmbeddingCache* embeddings,
                   const Request& request, std::vector<MediaInput>, Tap tap)
    : StagedRun(request),
      components_(std::move(components)),
      embeddings_(embeddings),
      tap_(std::move(tap)),
      schedule_(ValueOrThrow(MochiSchedule(components_->sampler, request_))) {
  const MochiVaeConfig& vae = components_->vae->config();
  grid_ = {.frames = (*request_.num_frames - 1) / vae.temporal_ratio() + 1,
           .height = *request_.height / vae.spatial_ratio(),
           .width = *request_.width / vae.spatial_ratio()};
  AddStage(Stage::kEncodeText, kTextShare, 1, &MochiRun::EncodeText);
  AddStage(Stage::kDenoise, kDenoiseShare, static_cast<int>(schedule_.timesteps.size()),
           &MochiRun::Denoise);
  AddStage(Stage::kDecode, kDecodeShare, *request_.num_frames, &MochiRun::Decode);
}

void MochiRun::Drop(Stage stage) {
  if (stage == Stage::kDenoise) prepared_.reset();
  if (stage == Stage::kDecode) decoder_.reset();
}

void MochiRun::EncodeText(const RunContext& context) {
  std::vector<std::optional<std::string>> prompts = Prompts();
  for (std::optional<std::string>& prompt : prompts) {
    if (components_->force_zeros_for_empty_prompt && prompt == "") prompt.reset();
  }
  state_.text =
      EncodePrompts({.tokenizer = components_->tokenizer.get(),
                     .encoder = components_->text_encoder.get(),
                     .cache = embeddings_,
                     .padding = PromptPadding::kMasked,
                     .max_length = *ReadKnobs(kMochiKnobs, request_.knobs).max_sequence_length,
                     .device = components_->transformer->device()},
                    prompts, tap_, context);
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
  if (tap_) TapTensor(tap_, absl::StrFormat("denoise_%03d", state_.step), state_.latents);
  Finish(1, /*is_last=*/step + 1 == schedule_.timesteps.size());
}

void MochiRun::PrepareDecode() {
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
  if (tap_) TapTensor(tap_, "latents", state_.latents);
  std::optional<TileGrid> grid;
  if (request_.plan.vae_tiling) {
    const VaeTileSizes tiles = kMochiTiles.With(*request_.plan.vae_tiling);
    grid = {tiles.min_height, tiles.min_width, tiles.stride_height, tiles.stride_width};
  }
  decoder_ = components_->vae->Decode(state_.latents, grid);
}

void MochiRun::Decode(const RunContext& context, const FrameSink& sink) {
  if (decoder_ == nullptr) PrepareDecode();
  DecodeFrames(*decoder_, context, sink);
}

}  // namespace kino::engine
