#include "engine/models/ltx/vae.h"

#include "engine/core/status.h"

namespace kino::engine {

LtxVae::LtxVae(const LtxVaeConfig& config, const ComponentFiles& files, c10::ScalarType dtype,
               c10::Device device)
    : Component(files, dtype, device),
      config_(config),
      encoder_(config,
               WeightScope(weights(), weights().AddGroup("encoder", "encoder")).Sub("encoder")),
      decoder_(config,
               WeightScope(weights(), weights().AddGroup("decoder", "decoder")).Sub("decoder")) {
  const WeightScope statistics(weights(), weights().AddGroup("statistics", "statistics"));
  latents_mean_ = statistics.Get("latents_mean", {config.latent_channels});
  latents_std_ = statistics.Get("latents_std", {config.latent_channels});
}

at::Tensor LtxVae::Encode(const LtxVideoSource& video, const LtxVaeTiling& tiling,
                          const RunContext& context) const {
  const int64_t ratio = config_.spatial_compression_ratio;
  TORCH_CHECK(config_.in_channels == 3 && video.frames > 0 && video.height > 0 && video.width > 0 &&
                  video.height % ratio == 0 && video.width % ratio == 0,
              "cannot encode a video of ", video.frames, " frames, ", video.height, "x",
              video.width, " pixels, in ", config_.in_channels, " channels");
  return LtxVaeEncode(encoder_, config_, video, tiling, RunLengthOn(device()),
                      at::TensorOptions().dtype(dtype()).device(device()), context);
}

std::unique_ptr<DecodeStream> LtxVae::Decode(const at::Tensor& latents,
                                             const LtxVaeDecodeOptions& options) const {
  TORCH_CHECK(latents.dim() == 5 && latents.size(0) == 1 &&
                  latents.size(1) == config_.latent_channels && latents.size(2) > 0,
              "cannot decode latents of shape ", latents.sizes());
  return LtxVaeDecode(decoder_, config_, latents.to(dtype()), options);
}

}  // namespace kino::engine
