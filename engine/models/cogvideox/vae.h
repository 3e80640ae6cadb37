// AutoencoderKLCogVideoX: latents to pixels and back, some latent frames at a time, as it was
// trained: its norms go over all frames of such a batch, so the cutting is a part of the model.
// Convolutions look back into the batch before. Each layer takes a whole batch. Immutable once
// configured; one thread at a time. Source: diffusers 0.42.1
// models/autoencoders/autoencoder_kl_cogvideox.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "engine/core/run_context.h"
#include "engine/memory/component.h"
#include "engine/models/cogvideox/vae_config.h"
#include "engine/models/common/vae_tiles.h"
#include "engine/nn/causal_conv3d.h"

namespace kino::engine {

class CogVideoXVae final : public Component {
 public:
  using Config = CogVideoXVaeConfig;
  // See MakeComponent.
  CogVideoXVae(const CogVideoXVaeConfig& config, const ComponentFiles& files, c10::ScalarType dtype,
               c10::Device device);

  const CogVideoXVaeConfig& config() const { return config_; }

  // latents: [1, C, F, h, w], unscaled, in the weights' dtype -> config().frames(F) frames. With
  // tiles they may be larger than h and w say.
  std::unique_ptr<DecodeStream> Decode(const at::Tensor& latents,
                                       const std::optional<VaeTiling>& tiling) const;

  // video: bytes [T, H, W, 3] -> moments [1, 2 * C, F, h, w]: means, then log variances. Throws
  // StatusError when the run is cancelled, and INVALID_ARGUMENT for tiles that do not fit together.
  at::Tensor Encode(const at::Tensor& video, const std::optional<VaeTiling>& tiling,
                    const RunContext& context) const;

 private:
  // GroupNorm; in the decoder with a scale and a shift that convolutions of kernel 1 make of the
  // latents.
  struct Norm {
    WeightAndBias norm;
    std::optional<WeightAndBias> scale, shift;
  };
  // CogVideoXResnetBlock3D.
  struct Resnet {
    struct State {
      CausalConv3d::State conv1, conv2;
    };
    Norm norm1, norm2;
    CausalConv3d conv1, conv2;
    std::optional<WeightAndBias> shortcut;
  };
  // Resnets, and what makes their frames larger or smaller.
  struct Block {
    std::vector<Resnet> resnets;
    std::optional<WeightAndBias> resampler;
    bool resamples_time = false;
  };
  struct Network {
    bool is_decoder;
    CausalConv3d conv_in;
    std::vector<Block> blocks;
    Norm norm_out;
    CausalConv3d conv_out;
  };

  Norm MakeNorm(const WeightScope& scope, int64_t channels, bool is_decoder) const;
  Resnet MakeResnet(const WeightScope& scope, int64_t in, int64_t out, bool is_decoder) const;
  // conv(SiLU(norm(frames))).
  at::Tensor NormConv(const Norm& norm, const CausalConv3d& conv, CausalConv3d::State& state,
                      at::Tensor frames, const at::Tensor& latents) const;
  at::Tensor Push(const Resnet& resnet, Resnet::State& state, at::Tensor frames,
                  const at::Tensor& latents) const;
  // Takes so many frames of latents, or of bytes.
  FrameChain Begin(const Network& network, int64_t frame_count) const;

  CogVideoXVaeConfig config_;
  std::unique_ptr<const Network> encoder_, decoder_;
};

}  // namespace kino::engine
