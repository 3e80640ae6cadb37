#include "engine/models/ltx/run.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/core/status_bridge.h"
#include "engine/models/common/condition_frames.h"
#include "engine/models/common/guidance.h"
#include "engine/models/common/latents.h"
#include "engine/models/common/text_stage.h"
#include "engine/models/ltx/describe.h"
#include "engine/models/ltx/latents.h"

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
      tap_(std::move(tap)) {
  const LtxVaeConfig& vae_config = vae().config();
  grid_ = {.frames = (*request_.num_frames - 1) / vae_config.temporal_compression_ratio + 1,
           .height = *request_.height / vae_config.spatial_compression_ratio,
           .width = *request_.width / vae_config.spatial_compression_ratio,
           .temporal_scale =
               static_cast<double>(vae_config.temporal_compression_ratio) / *knobs_.frame_rate,
           .spatial_scale = static_cast<double>(vae_config.spatial_compression_ratio)};

  schedule_ = ValueOrThrow(LtxSchedule(components_->sampler, request_, grid_.tokens()));

  AddStage(Stage::kEncodeText, kTextShare, 1, &LtxRun::EncodeText);
  if (!media_.empty()) {
    AddStage(Stage::kEncodeMedia, kMediaShare, 1, &LtxRun::EncodeImage);
  }
  AddStage(Stage::kDenoise, kDenoiseShare, static_cast<int>(schedule_.timesteps.size()),
           &LtxRun::Denoise);
  AddStage(Stage::kDecode, kDecodeShare, *request_.num_frames, &LtxRun::Decode);
}

void LtxRun::Drop(Stage stage) {
  if (stage == Stage::kDenoise) prepared_.clear();
  if (stage == Stage::kDecode) decoder_.reset();
}

void LtxRun::EncodeText(const RunContext& context) {
  // diffusers passes the encoder no mask. Cross-attention has one: it leaves padding alone.
  state_.text = EncodePrompts({.tokenizer = components_->tokenizer.get(),
                               .encoder = components_->text_encoder.get(),
                               .cache = embeddings_,
                               .padding = PromptPadding::kSeen,
                               .max_length = *knobs_.max_sequence_length,
                               .device = components_->transformer->device()},
                              Prompts(), tap_, context);
  if (media_.empty()) PrepareLatents({});
  Finish(1, /*is_last=*/true);
}

void LtxRun::EncodeImage(const RunContext& context) {
  const at::Tensor bytes = ConditionFrames(media_.front(), 0, 1, *request_.height, *request_.width);
  const at::Tensor first = SampleLtxVideo(vae(), bytes, LtxVaeTiling::Of(request_.plan.vae_tiling),
                                          state_.noise, context);
  if (tap_) TapTensor(tap_, "image_latents", first);
  PrepareLatents(first);
  Finish(1, /*is_last=*/true);
}

void LtxRun::PrepareLatents(const at::Tensor& first_frame) {
  const int64_t channels = components_->transformer->config().in_channels;
  at::Tensor latents = state_.noise.Randn({1, channels, grid_.frames, grid_.height, grid_.width},
                                          at::kFloat, components_->transformer->device());
  if (first_frame.defined()) latents.narrow(2, 0, 1).copy_(first_frame);
  state_.latents = PackLatents(latents);
}

void LtxRun::PrepareDenoise(const RunContext& context) {
  // Row i of the timestep table is step i; behind them, a clean token's 0.
  std::vector<float> timesteps = schedule_.timesteps;
  if (!media_.empty()) timesteps.push_back(0.0f);
  std::vector<LtxTransformer::Prepared> prepared;
  for (const at::Tensor& text : state_.text) {
    prepared.push_back(components_->transformer->Prepare(
        text, grid_, timesteps, prepared.empty() ? nullptr : prepared.data(), context));
  }
  prepared_ = std::move(prepared);
}

void LtxRun::Denoise(const RunContext& context) {
  if (prepared_.empty()) PrepareDenoise(context);
  const size_t step = static_cast<size_t>(state_.step);
  const int64_t tokens = grid_.tokens();
  // An image is the first latent frame: its tokens are clean and stay as they are.
  const int64_t clean = media_.empty() ? 0 : grid_.height * grid_.width;
  const TokenSpans spans =
      clean == 0 ? TokenSpans{{0, tokens, state_.step}}
                 : TokenSpans{{0, clean, static_cast<int64_t>(schedule_.timesteps.size())},
                              {clean, tokens, state_.step}};
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
  at::Tensor moving = state_.latents.narrow(1, clean, tokens - clean);
  const at::Tensor next = EulerStep(moving, prediction.narrow(1, clean, tokens - clean),
                                    schedule_.sigmas[step], schedule_.sigmas[step + 1]);
  state_.latents = clean == 0 ? next : at::cat({state_.latents.narrow(1, 0, clean), next}, 1);
  if (tap_) TapTensor(tap_, absl::StrFormat("denoise_%03d", state_.step), state_.latents);
  Finish(1, /*is_last=*/step + 1 == schedule_.timesteps.size());
}

void LtxRun::PrepareDecode() {
  const at::Tensor latents = DenormalizeLtxLatents(
      vae(), UnpackLatents(state_.latents, grid_.frames, grid_.height, grid_.width));
  state_.latents = latents.to(components_->text_encoder->dtype());
  decoder_ =
      StartLtxDecode(vae(), knobs_, request_.plan.vae_tiling, state_.latents, state_.noise, tap_);
}

void LtxRun::Decode(const RunContext& context, const FrameSink& sink) {
  if (decoder_ == nullptr) PrepareDecode();
  DecodeFrames(*decoder_, context, sink);
}

}  // namespace kino::engine
