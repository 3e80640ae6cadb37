// AutoencoderKLLTXVideo: the VAE of LTX-Video, all published generations.
// Immutable once configured; Encode and Decode may be used by one thread at a time. Source:
// diffusers 0.42.1 models/autoencoders/autoencoder_kl_ltx.py.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>

#include "engine/core/run_context.h"
#include "engine/memory/component.h"
#include "engine/models/common/condition_frames.h"
#include "engine/models/common/vae_tiles.h"
#include "engine/models/ltx/vae_config.h"
#include "engine/models/ltx/vae_decoder.h"
#include "engine/models/ltx/vae_encoder.h"
#include "engine/nn/run_length.h"

namespace kino::engine {

struct LtxVaeDecodeOptions {
  at::Tensor timestep;                           // [1]; for a decoder conditioned on it
  std::optional<at::Generator> noise_generator;  // CPU; for a decoder that injects noise
  std::optional<VaeTiling> tiling = {};
  std::optional<RunLength> runs = {};  // RunLengthOn the device, if not given
};

// Tiles change the picture slightly; the exact decode by runs of frames needs them only where one
// frame is too large for the device. Those of a decode advance through time together, and each
// keeps what its layers remember; an encode goes through the video once for each.
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
  // h, w] in the weights' dtype: means, then log variances. Throws as DecodeStream::NextFrames
  // does. REQUIRES: CheckWholeTiles.
  at::Tensor Encode(const VideoSource& video, const std::optional<VaeTiling>& tiling,
                    const RunContext& context, const std::optional<RunLength>& runs = {}) const;

  // latents: [1, C, F, h, w], denormalised. Draws what noise the decoder injects at once (with
  // framewise decoding, at each tile in time).
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
