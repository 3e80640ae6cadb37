#include "engine/models/hunyuan_video/run.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <utility>

#include "engine/core/status_bridge.h"
#include "engine/models/common/condition_frames.h"
#include "engine/models/common/guidance.h"
#include "engine/models/common/joined_decode.h"
#include "engine/models/common/latents.h"

namespace kino::engine {
namespace {

// Tokens that CLIP is given.
constexpr int kClipTokens = 77;
// Of the negative prompt's image, whatever the request says of the other one.
constexpr int kNegativeInterleave = 2;
// From here on all of the image's tokens are taken.
constexpr int kNoInterleave = 6;
// How much of the noise an image to video starts from is noise.
constexpr float kNoiseShare = 0.999f;

// [1, C, 1, h, w] with frames of zeros behind it.
at::Tensor FillFrames(const at::Tensor& latents, int64_t frames) {
  return at::constant_pad_nd(latents, {0, 0, 0, 0, 0, frames - latents.size(2)});
}

}  // namespace

HunyuanVideoRun::HunyuanVideoRun(Inputs inputs)
    : FamilyRun(std::move(inputs)),
      knobs_(ReadKnobs(kHunyuanVideoKnobs, request_.knobs)),
      schedule_(ValueOrThrow(HunyuanVideoSchedule(components_->sampler,
                                                  components_->transformer->config(),
                                                  components_->vae->config(), request_))) {}

void HunyuanVideoRun::EncodeText(const RunContext& context) {
  const std::vector<std::optional<std::string>> prompts = Prompts();
  const c10::Device device = components_->transformer->device();
  const bool with_image = ReadsImage(components_->kind);
  std::vector<PromptImage> images;
  if (with_image) images = PromptImages(context);
  state_.text =
      EncodeTemplated({.tokenizer = components_->tokenizer.get(),
                       .encoder = components_->text_encoder.get(),
                       .cache = embeddings_,
                       .around = with_image ? &kImageToVideoTemplate : &kTextToVideoTemplate,
                       .max_length = *knobs_.max_sequence_length,
                       .device = device},
                      prompts, images, tap_, context);
  state_.pooled_text = EncodePooled({.tokenizer = components_->tokenizer_2.get(),
                                     .encoder = components_->text_encoder_2.get(),
                                     .cache = embeddings_,
                                     .length = kClipTokens,
                                     .device = device},
                                    prompts, tap_, context);
}

// The condition's and, for a negative prompt, a black one before it.
std::vector<PromptImage> HunyuanVideoRun::PromptImages(const RunContext& context) const {
  std::vector<MediaInput> images;
  if (guided()) images.push_back(BlackImage(*request_.height, *request_.width));
  images.push_back(media_.front());
  std::vector<at::Tensor> pixels;
  for (const MediaInput& image : images)
    pixels.push_back(EncoderPixels(*components_->image_processor, image));
  std::vector<PromptImage> shown;
  for (const at::Tensor& features : components_->image_encoder->Forward(pixels, context)) {
    const bool is_negative = guided() && shown.empty();
    const int every = is_negative ? kNegativeInterleave : *knobs_.image_embed_interleave;
    shown.push_back({.features = features, .interleave = every < kNoInterleave ? every : 1});
  }
  return shown;
}

at::Tensor HunyuanVideoRun::EncodeImage(size_t condition, const RunContext& context) const {
  return components_->vae->Encode(
      ConditionVideo(media_[condition],
                     {.height = *request_.height, .width = *request_.width, .num_frames = 1}),
      request_.plan.vae_tiling, context);
}

at::Tensor HunyuanVideoRun::DrawNoise(int64_t frames) {
  const HunyuanVideoVaeConfig& vae = components_->vae->config();
  return state_.noise.Randn({1, vae.latent_channels, frames, *request_.height / vae.spatial_ratio,
                             *request_.width / vae.spatial_ratio},
                            at::kFloat, components_->transformer->device());
}

HunyuanVideoTransformer::Prepared HunyuanVideoRun::Prepare(int64_t frames,
                                                           const std::vector<float>& timesteps,
                                                           const RunContext& context) const {
  const HunyuanVideoTransformer& transformer = *components_->transformer;
  const int ratio = components_->vae->config().spatial_ratio;
  std::vector<HunyuanVideoText> texts;
  for (size_t i = 0; i < state_.text.size(); ++i) {
    texts.push_back(
        {.tokens = state_.text[i], .pooled = state_.pooled_text[i], .image = state_.image});
  }
  // Rounded to the transformer's dtype as it is passed, and again once it is multiplied.
  const at::Tensor guidance =
      at::full({}, *request_.guidance_scale, at::TensorOptions().dtype(transformer.dtype()));
  return transformer.Prepare(
      texts,
      {.frames = frames, .height = *request_.height / ratio, .width = *request_.width / ratio},
      timesteps, guidance.item<float>() * 1000.0f, context);
}

at::Tensor HunyuanVideoRun::Predict(const at::Tensor& input, const RunContext& context) const {
  const HunyuanVideoTransformer& transformer = *components_->transformer;
  at::Tensor rows = input.to(transformer.dtype());
  if (guided()) rows = rows.expand({2, -1, -1, -1, -1});
  const at::Tensor prediction = transformer.Forward(*prepared_, state_.step, rows, context);
  return guided() ? Guide(prediction, *knobs_.true_cfg_scale) : prediction;
}

std::unique_ptr<DecodeStream> HunyuanVideoRun::Decode(const at::Tensor& latents,
                                                      const std::string& tap_name) const {
  const HunyuanVideoVae& vae = *components_->vae;
  const at::Tensor scaled = latents.to(vae.dtype()).div(vae.config().scaling_factor).contiguous();
  TapTensor(tap_, tap_name, scaled);
  return vae.Decode(scaled, request_.plan.vae_tiling);
}

HunyuanVideoClipRun::HunyuanVideoClipRun(Inputs inputs)
    : HunyuanVideoRun(std::move(inputs)),
      frames_(components_->vae->config().latent_frames(*request_.num_frames)) {
  AddStage(Stage::kEncodeText, kTextShare, 1, &HunyuanVideoClipRun::EncodePrompts);
  if (!media_.empty())
    AddStage(Stage::kEncodeMedia, kMediaShare, 1, &HunyuanVideoClipRun::EncodeMedia);
  AddStage(Stage::kDenoise, kDenoiseShare, static_cast<int>(schedule_.timesteps.size()),
           &HunyuanVideoClipRun::Denoise);
  AddDecode(kDecodeShare, *request_.num_frames, &HunyuanVideoClipRun::StartDecode);
}

void HunyuanVideoClipRun::EncodePrompts(const RunContext& context) {
  EncodeText(context);
  if (media_.empty()) state_.latents = DrawNoise(frames_);
  Finish(1, /*is_last=*/true);
}

void HunyuanVideoClipRun::EncodeMedia(const RunContext& context) {
  const double scale = components_->vae->config().scaling_factor;
  const at::Tensor moments = EncodeImage(0, context);
  if (components_->kind == HunyuanVideoKind::kSkyReels) {
    const at::Tensor image = SamplePosterior(moments, state_.noise).to(at::kFloat) * scale;
    state_.condition = FillFrames(image, frames_);
    state_.latents = DrawNoise(frames_);
    return Finish(1, /*is_last=*/true);
  }
  const at::Tensor image = PosteriorMode(moments).to(at::kFloat) * scale;
  state_.latents = DrawNoise(frames_) * kNoiseShare + image * (1 - kNoiseShare);
  state_.condition = image;
  if (components_->kind == HunyuanVideoKind::kLatentConcat) {
    // The image, and where it is.
    const at::Tensor mask = at::ones({1, 1, 1, image.size(3), image.size(4)}, image.options());
    state_.condition = FillFrames(at::cat({image, mask}, 1), frames_);
  }
  Finish(1, /*is_last=*/true);
}

std::vector<float> HunyuanVideoClipRun::Timesteps() const {
  if (replaces()) return schedule_.timesteps;
  const at::Tensor rounded = at::tensor(schedule_.timesteps, at::kFloat)
                                 .to(components_->transformer->dtype())
                                 .to(at::kFloat);
  std::vector<float> timesteps = schedule_.timesteps;
  std::copy_n(rounded.const_data_ptr<float>() + 1, timesteps.size() - 1, timesteps.begin() + 1);
  return timesteps;
}

void HunyuanVideoClipRun::Denoise(const RunContext& context) {
  if (!prepared_) prepared_ = Prepare(frames_, Timesteps(), context);
  const size_t step = static_cast<size_t>(state_.step);
  const at::Tensor made = replaces() ? state_.latents.narrow(2, 1, frames_ - 1) : state_.latents;
  at::Tensor input = made;
  if (state_.condition.defined())
    input =
        replaces() ? at::cat({state_.condition, made}, 2) : at::cat({made, state_.condition}, 1);
  at::Tensor prediction = Predict(input, context);
  if (replaces()) prediction = prediction.narrow(2, 1, frames_ - 1);
  // As upstream has them, in the prediction's dtype.
  state_.latents = EulerStep(made, prediction, schedule_.sigmas[step], schedule_.sigmas[step + 1])
                       .to(at::kFloat);
  if (replaces()) state_.latents = at::cat({state_.condition, state_.latents}, 2);
  TapStep(state_.step, state_.latents);
  Finish(1, /*is_last=*/step + 1 == schedule_.timesteps.size());
}

std::unique_ptr<DecodeStream> HunyuanVideoClipRun::StartDecode() {
  std::unique_ptr<DecodeStream> decode = Decode(state_.latents, "latents");
  if (components_->kind != HunyuanVideoKind::kLatentConcat) return decode;
  // The first latent frame is the image's own; its frames and those up to the next are left out.
  return std::make_unique<JoinedDecode>(
      std::move(decode),
      JoinedDecode::Part{.frames = components_->vae->config().frames(static_cast<int>(frames_)),
                         .dropped = HunyuanVideoVaeConfig::kTemporalRatio},
      at::Tensor(), nullptr);
}

}  // namespace kino::engine
