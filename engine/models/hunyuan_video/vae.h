// AutoencoderKLHunyuanVideo: latents to pixels and back, a tile in time at a time, as the class
// does unless it is told not to. Norms and the attention in the middle see all frames of a tile, so
// a tile is what goes from layer to layer (nn/clip_layers). Immutable once configured; one thread
// at a time. Source: diffusers 0.42.1 models/autoencoders/autoencoder_kl_hunyuan_video.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "engine/core/run_context.h"
#include "engine/memory/component.h"
#include "engine/models/common/condition_frames.h"
#include "engine/models/common/vae_tiles.h"
#include "engine/models/hunyuan_video/vae_config.h"
#include "engine/nn/clip_layers.h"
#include "engine/nn/frame_chain.h"
#include "engine/nn/frame_layers.h"

namespace kino::engine {

class HunyuanVideoVae final : public Component {
 public:
  using Config = HunyuanVideoVaeConfig;
  // See MakeComponent.
  HunyuanVideoVae(const HunyuanVideoVaeConfig& config, const ComponentFiles& files,
                  c10::ScalarType dtype, c10::Device device);

  const HunyuanVideoVaeConfig& config() const { return config_; }

  // latents: [1, C, F, h, w], unscaled, in the weights' dtype -> config().frames(F) frames. Without
  // `tiling` no tiles in space, and those in time that the class has. The frames of a tile leave
  // before the next one is begun.
  std::unique_ptr<DecodeStream> Decode(const at::Tensor& latents,
                                       const std::optional<VaeTiling>& tiling) const;

  // REQUIRES: config().has_encoder. Height and width are multiples of the spatial ratio -> moments
  // [1, 2 * C, F, h, w] in the weights' dtype: means, then log variances, as PosteriorMode and
  // SamplePosterior take them. Throws StatusError when the run is cancelled, and INVALID_ARGUMENT
  // as HunyuanVideoVaeConfig::CheckEncodeTiling.
  at::Tensor Encode(const VideoSource& video, const std::optional<VaeTiling>& tiling,
                    const RunContext& context) const;

 private:
  // Resnets, behind the first an attention, and behind all what makes their clip larger or smaller.
  struct Block {
    std::vector<ClipResnet> resnets;
    std::optional<FrameAttention> attention;
    std::optional<ClipConvolution> resampler;
    bool resamples_time = false;
  };
  struct Network {
    bool is_decoder;
    FrameConvolution quant;  // post_quant_conv, in front; quant_conv, behind
    ClipConvolution conv_in;
    std::vector<Block> blocks;
    GroupNorm norm_out;
    ClipConvolution conv_out;
  };

  Network MakeNetwork(const char* name, const char* quant, bool is_decoder);
  // Each layer takes a whole clip: of latents, or of pixels.
  FrameChain Begin(const Network& network) const;

  HunyuanVideoVaeConfig config_;
  std::optional<Network> encoder_;  // where the config has one
  const Network decoder_;
};

}  // namespace kino::engine
