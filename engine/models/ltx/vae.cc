#include "engine/models/ltx/vae.h"

namespace kino::engine {
namespace {

// Enough to keep the convolutions busy at the encoder's full resolution.
constexpr int kEncodeFramesPerPush = 16;

}  // namespace

LtxVae::LtxVae(const LtxVaeConfig& config, WeightSet& set)
    : config_(config),
      dtype_(set.dtype()),
      encoder_(config, WeightScope(set, set.AddGroup("vae.encoder")).Sub("encoder")),
      decoder_(config, WeightScope(set, set.AddGroup("vae.decoder")).Sub("decoder")) {
  const WeightScope statistics(set, set.AddGroup("vae.statistics"));
  latents_mean_ = statistics.Get("latents_mean", {config.latent_channels});
  latents_std_ = statistics.Get("latents_std", {config.latent_channels});
}

at::Tensor LtxVae::Encode(const at::Tensor& video, const LtxVaeTiling& tiling,
                          const RunContext& context) const {
  const int64_t ratio = config_.spatial_compression_ratio;
  TORCH_CHECK(video.dim() == 5 && video.size(0) == 1 && video.size(1) == config_.in_channels &&
                  video.size(2) > 0 && video.size(3) % ratio == 0 && video.size(4) % ratio == 0,
              "cannot encode a video of shape ", video.sizes());
  return LtxVaeEncode(encoder_, config_, video.to(dtype_), tiling, kEncodeFramesPerPush, context);
}

std::unique_ptr<LtxVaeDecodeStream> LtxVae::Decode(const at::Tensor& latents,
                                                   const LtxVaeDecodeOptions& options) const {
  TORCH_CHECK(latents.dim() == 5 && latents.size(0) == 1 &&
                  latents.size(1) == config_.latent_channels && latents.size(2) > 0,
              "cannot decode latents of shape ", latents.sizes());
  return LtxVaeDecode(decoder_, config_, latents.to(dtype_), options);
}

}  // namespace kino::engine
