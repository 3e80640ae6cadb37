// AutoencoderKLLTXVideo: the VAE of LTX-Video, all published generations.
// Immutable once configured; Encode and Decode may be used by one thread at a time. Source:
// diffusers 0.42.1 models/autoencoders/autoencoder_kl_ltx.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "engine/core/run_context.h"
#include "engine/memory/component.h"
#include "engine/models/ltx/vae_config.h"
#include "engine/models/ltx/vae_decoder.h"
#include "engine/models/ltx/vae_encoder.h"
#include "engine/models/ltx/vae_tiling.h"

namespace kino::engine {

class LtxVae final : public Component {
 public:
  using Config = LtxVaeConfig;
  // See MakeComponent.
  LtxVae(const LtxVaeConfig& config, const ComponentFiles& files, c10::ScalarType dtype,
         c10::Device device);

  const LtxVaeConfig& config() const { return config_; }
  // [C], in the weights' dtype: normalised = (latent - mean) * scaling_factor / std. They do not
  // bring the VAE to the device.
  at::Tensor latents_mean() const { return latents_mean_.OnHost().to(device()); }
  at::Tensor latents_std() const { return latents_std_.OnHost().to(device()); }

  // Height and width of the video are multiples of the compression ratio -> moments [1, 2 * C, F,
  // h, w] in the weights' dtype: means, then log variances. Throws as LtxVaeEncode does.
  at::Tensor Encode(const LtxVideoSource& video, const LtxVaeTiling& tiling,
                    const RunContext& context) const;

  // latents: [1, C, F, h, w], denormalised. Draws what noise the decoder injects at once (with
  // framewise decoding, at each tile in time). Throws StatusError INVALID_ARGUMENT for tiles that
  // cannot be.
  std::unique_ptr<DecodeStream> Decode(const at::Tensor& latents,
                                       const LtxVaeDecodeOptions& options) const;

 private:
  LtxVaeConfig config_;
  LtxVaeEncoder encoder_;
  LtxVaeDecoder decoder_;
  WeightRef latents_mean_;
  WeightRef latents_std_;
};

}  // namespace kino::engine
