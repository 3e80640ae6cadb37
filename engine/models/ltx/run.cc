#include "engine/models/ltx/run.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/core/status_bridge.h"
#include "engine/core/trace.h"
#include "engine/media/resize.h"
#include "engine/models/common/guidance.h"
#include "engine/models/ltx/describe.h"

namespace kino::engine {
namespace {

// Shares of a typical run's time, for the progress bar only.
constexpr double kTextShare = 0.02;
constexpr double kMediaShare = 0.02;
constexpr double kDenoiseShare = 0.82;

template <typename T>
T ValueOrThrow(absl::StatusOr<T> value) {
  ThrowIfError(value.status());
  return *std::move(value);
}

// [C, F, h, w] statistics as [1, C, 1, 1, 1] in float32.
at::Tensor ByChannel(const at::Tensor& statistics) {
  return statistics.to(at::kFloat).view({1, -1, 1, 1, 1});
}

// [1, C, F, h, w] -> [1, F * h * w, C]
at::Tensor Pack(const at::Tensor& latents) {
  return latents.permute({0, 2, 3, 4, 1}).flatten(1, 3).contiguous();
}

// What the request says over diffusers' defaults.
LtxVaeTiling Tiling(const std::optional<VaeTiling>& request) {
  LtxVaeTiling tiling;
  if (!request) return tiling;
  const auto set = [](int64_t& field, const std::optional<int>& value) {
    if (value) field = *value;
  };
  tiling.use_tiling = true;
  tiling.use_framewise_decoding = request->framewise;
  set(tiling.tile_sample_min_height, request->tile_sample_min_height);
  set(tiling.tile_sample_min_width, request->tile_sample_min_width);
  set(tiling.tile_sample_min_num_frames, request->tile_sample_min_num_frames);
  set(tiling.tile_sample_stride_height, request->tile_sample_stride_height);
  set(tiling.tile_sample_stride_width, request->tile_sample_stride_width);
  set(tiling.tile_sample_stride_num_frames, request->tile_sample_stride_num_frames);
  return tiling;
}

}  // namespace

LtxRunState LtxRunState::Clone() const {
  return {.stage = stage, .step = step, .latents = latents, .text = text, .noise = noise.Clone()};
}

LtxRun::LtxRun(std::shared_ptr<const LtxComponents> components, EmbeddingCache* embeddings,
               const Request& request, std::vector<MediaInput> media, Tap tap)
    : components_(std::move(components)),
      embeddings_(embeddings),
      request_(request),
      media_(std::move(media)),
      tap_(std::move(tap)),
      state_{.stage = Stage::kEncodeText,
             .step = 0,
             .latents = {},
             .text = {},
             .noise = NoiseSource(*request.seed)},
      before_(state_.Clone()) {
  const LtxVaeConfig& vae_config = vae().config();
  const LtxOptions& options = *request_.ltx;
  grid_ = {.frames = (*request_.num_frames - 1) / vae_config.temporal_compression_ratio + 1,
           .height = *request_.height / vae_config.spatial_compression_ratio,
           .width = *request_.width / vae_config.spatial_compression_ratio,
           .temporal_scale =
               static_cast<double>(vae_config.temporal_compression_ratio) / *options.frame_rate,
           .spatial_scale = static_cast<double>(vae_config.spatial_compression_ratio)};

  schedule_ = ValueOrThrow(LtxSchedule(components_->sampler, request_, grid_.tokens()));
}

std::vector<Stage> LtxRun::stages() const {
  if (media_.empty()) return {Stage::kEncodeText, Stage::kDenoise, Stage::kDecode};
  return {Stage::kEncodeText, Stage::kEncodeMedia, Stage::kDenoise, Stage::kDecode};
}

void LtxRun::Enter(Stage stage) {
  state_.stage = stage;
  state_.step = 0;
}

PipelineRun::Position LtxRun::position() const {
  const double media_share = media_.empty() ? 0 : kMediaShare;
  const double decode_start = kTextShare + media_share + kDenoiseShare;
  Position position{
      .stage = state_.stage, .step = state_.step, .total_steps = 1, .fraction = 0, .done = done_};
  switch (state_.stage) {
    case Stage::kEncodeText:
      position.fraction = 0;
      break;
    case Stage::kEncodeMedia:
      position.fraction = kTextShare;
      break;
    case Stage::kDenoise:
      position.total_steps = static_cast<int>(schedule_.timesteps.size());
      position.fraction =
          kTextShare + media_share + kDenoiseShare * state_.step / position.total_steps;
      break;
    default:
      position.total_steps = *request_.num_frames;
      position.fraction = decode_start + (1 - decode_start) * state_.step / position.total_steps;
      break;
  }
  if (done_) position.fraction = 1;
  return position;
}

void LtxRun::Advance(const RunContext& context, const FrameSink& sink) {
  ThrowIfError(context.Advance());
  if (decoder_ == nullptr) before_ = state_.Clone();
  switch (state_.stage) {
    case Stage::kEncodeText:
      return EncodeText(context);
    case Stage::kEncodeMedia:
      return EncodeImage(context);
    case Stage::kDenoise:
      return Denoise(context);
    default:
      return Decode(context, sink);
  }
}

void LtxRun::Retry(const Plan& plan) {
  request_.plan = plan;
  decoder_.reset();
  state_ = before_.Clone();
}

void LtxRun::SkipTo(Stage stage) {
  if (stage == Stage::kDecode) {
    prepared_.clear();
    state_.text.clear();
  }
  Enter(stage);
}

void LtxRun::EncodeText(const RunContext& context) {
  const c10::Device device = components_->transformer->device();
  const int max_length = *request_.ltx->max_sequence_length;
  std::vector<Tokens> prompts;
  const auto add = [&](const std::string& text) {
    // Without a tokenizer: as long as may be, and no two alike.
    prompts.push_back(
        components_->tokenizer == nullptr
            ? Tokens{.ids = std::vector<int64_t>(max_length, static_cast<int64_t>(prompts.size())),
                     .attention_mask = std::vector<int64_t>(max_length, 1)}
            : ValueOrThrow(components_->tokenizer->Encode(text, max_length)));
  };
  if (guided()) add(*request_.negative_prompt);
  add(*request_.prompt);

  std::vector<at::Tensor> states, missing;
  std::vector<std::string> keys;
  for (const Tokens& tokens : prompts) {
    keys.push_back(EmbeddingCache::Key(components_->text_encoder->identity(), tokens.ids));
    states.push_back(embeddings_->Find(keys.back()));
    const bool is_repeated = std::find(keys.begin(), keys.end() - 1, keys.back()) < keys.end() - 1;
    if (states.back().defined() || is_repeated) continue;
    missing.push_back(at::tensor(tokens.ids, at::TensorOptions().dtype(at::kLong)).unsqueeze(0));
  }
  const std::vector<at::Tensor> encoded = components_->text_encoder->Forward(missing, context);
  size_t next = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (!states[i].defined()) {
      const size_t first =
          static_cast<size_t>(std::find(keys.begin(), keys.end(), keys[i]) - keys.begin());
      states[i] = first < i ? states[first] : encoded[next++];
      embeddings_->Insert(keys[i], states[i]);
    }
    states[i] = states[i].to(device);
    if (tap_) {
      const at::Tensor ids = at::tensor(prompts[i].ids, at::TensorOptions().dtype(at::kFloat));
      TapTensor(tap_, absl::StrCat("tokens_", i), ids);
      TapTensor(tap_, absl::StrCat("text_states_", i), states[i]);
    }
    // The encoder saw the padding (diffusers passes it no mask); cross-attention does not: its mask
    // leaves the text alone.
    const std::vector<int64_t>& mask = prompts[i].attention_mask;
    state_.text.push_back(states[i].narrow(1, 0, std::count(mask.begin(), mask.end(), 1)));
  }
  if (!media_.empty()) {
    Enter(Stage::kEncodeMedia);
  } else {
    PrepareLatents({});
  }
}

void LtxRun::EncodeImage(const RunContext& context) {
  const MediaInput& media = media_.front();
  RgbImage image{.width = media.width, .height = media.height, .rgb = {}};
  image.rgb.assign(media.rgb.begin(), media.rgb.begin() + int64_t{3} * media.width * media.height);
  // diffusers' VideoProcessor resizes even when the size is already right; Lanczos then changes
  // nothing.
  const RgbImage resized = ValueOrThrow(ResizeLanczos(image, *request_.width, *request_.height));
  const at::Tensor bytes =
      at::from_blob(const_cast<uint8_t*>(resized.rgb.data()), {1, resized.height, resized.width, 3},
                    at::TensorOptions().dtype(at::kByte));
  const LtxVideoSource video = {
      .frames = 1,
      .height = resized.height,
      .width = resized.width,
      .read = [&](int64_t first, int64_t count) { return bytes.narrow(0, first, count); }};
  // A draw from the encoder's distribution (diffusers' DiagonalGaussianDistribution.sample), in the
  // VAE's dtype.
  const std::vector<at::Tensor> moments =
      vae().Encode(video, Tiling(request_.plan.vae_tiling), context).chunk(2, 1);
  const at::Tensor deviation = at::exp(moments[1].clamp(-30.0, 20.0) * 0.5);
  const at::Tensor sample =
      moments[0] + deviation * state_.noise.Randn(moments[0].sizes(), moments[0].scalar_type(),
                                                  moments[0].device());
  const at::Tensor first =
      (sample.to(at::kFloat) - ByChannel(vae().latents_mean())) / ByChannel(vae().latents_std());
  if (tap_) TapTensor(tap_, "image_latents", first);
  PrepareLatents(first);
}

void LtxRun::PrepareLatents(const at::Tensor& first_frame) {
  const int64_t channels = components_->transformer->config().in_channels;
  at::Tensor latents = state_.noise.Randn({1, channels, grid_.frames, grid_.height, grid_.width},
                                          at::kFloat, components_->transformer->device());
  if (first_frame.defined()) latents.narrow(2, 0, 1).copy_(first_frame);
  state_.latents = Pack(latents);
  Enter(Stage::kDenoise);
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
    const double rescale = *request_.ltx->guidance_rescale;
    if (rescale > 0) prediction = RescaleGuidance(prediction, positive, rescale);
  }
  at::Tensor moving = state_.latents.narrow(1, clean, tokens - clean);
  const at::Tensor next = EulerStep(moving, prediction.narrow(1, clean, tokens - clean),
                                    schedule_.sigmas[step], schedule_.sigmas[step + 1]);
  state_.latents = clean == 0 ? next : at::cat({state_.latents.narrow(1, 0, clean), next}, 1);
  if (tap_) TapTensor(tap_, absl::StrFormat("denoise_%03d", state_.step), state_.latents);
  if (++state_.step < static_cast<int>(schedule_.timesteps.size())) return;
  SkipTo(Stage::kDecode);
}

at::Tensor LtxRun::Unpack(const at::Tensor& latents) const {
  return latents.unflatten(1, {grid_.frames, grid_.height, grid_.width}).permute({0, 4, 1, 2, 3});
}

void LtxRun::PrepareDecode() {
  at::Tensor latents =
      Unpack(state_.latents) * ByChannel(vae().latents_std()) / vae().config().scaling_factor +
      ByChannel(vae().latents_mean());
  latents = latents.to(components_->text_encoder->dtype());
  at::Tensor timestep;
  if (vae().config().timestep_conditioning) {
    const at::Tensor noise =
        state_.noise.Randn(latents.sizes(), latents.scalar_type(), latents.device());
    const at::TensorOptions options = latents.options();
    timestep = at::tensor({*request_.ltx->decode_timestep}, at::TensorOptions().dtype(at::kDouble))
                   .to(options);
    const at::Tensor scale =
        at::tensor({*request_.ltx->decode_noise_scale}, at::TensorOptions().dtype(at::kDouble))
            .to(options);
    latents = (1 - scale) * latents + scale * noise;
  }
  state_.latents = latents.to(vae().dtype()).contiguous();
  if (tap_) TapTensor(tap_, "latents", state_.latents);
  decoder_ = vae().Decode(state_.latents, {.timestep = timestep,
                                           .noise_generator = state_.noise.global(),
                                           .tiling = Tiling(request_.plan.vae_tiling)});
}

void LtxRun::Decode(const RunContext& context, const FrameSink& sink) {
  if (decoder_ == nullptr) PrepareDecode();
  at::Tensor pixels = decoder_->NextFrames(context);
  if (pixels.defined()) {
    state_.step += static_cast<int>(pixels.size(0));
    // diffusers rounds in the VAE's dtype before it goes to float32.
    sink(ToHost(pixels.mul(0.5).add_(0.5).clamp_(0.0, 1.0), at::kFloat).contiguous());
  }
  if (decoder_->done()) {
    decoder_.reset();
    state_.latents.reset();
    done_ = true;
  }
}

}  // namespace kino::engine
