// AutoencoderKLMochi's decoder: Mochi-1's latents to pixels, a run of frames at a time in each
// layer. Every layer looks back only, so the cutting into runs changes nothing. Text to video needs
// no encoder: its weights may be in the file and are not loaded. Immutable once configured; one
// thread at a time. Source: diffusers 0.42.1 models/autoencoders/autoencoder_kl_mochi.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "engine/memory/component.h"
#include "engine/models/common/vae_tiles.h"
#include "engine/models/mochi/vae_config.h"
#include "engine/nn/causal_conv3d.h"
#include "engine/nn/run_length.h"

namespace kino::engine {

class MochiVae final : public Component {
 public:
  using Config = MochiVaeConfig;
  // See MakeComponent.
  MochiVae(const MochiVaeConfig& config, const ComponentFiles& files, c10::ScalarType dtype,
           c10::Device device);

  const MochiVaeConfig& config() const { return config_; }

  // latents: [1, C, F, h, w], denormalised, in the weights' dtype -> (F - 1) * ratio + 1 frames.
  // `grid`: tiles in space, if any, in pixels. `runs`: RunLengthOn the device, if not given.
  std::unique_ptr<DecodeStream> Decode(const at::Tensor& latents,
                                       const std::optional<TileGrid>& grid,
                                       const std::optional<RunLength>& runs = {}) const;

 private:
  struct Norm {
    WeightRef weight, bias;
  };
  // MochiResnetBlock3D.
  struct Resnet {
    struct State {
      CausalConv3d::State conv1, conv2;
    };
    Resnet(const WeightScope& scope, int64_t channels);
    at::Tensor Push(State& state, at::Tensor frames, bool last) const;

    Norm norm1, norm2;
    CausalConv3d conv1, conv2;
  };
  // Resnets, and what makes their frames larger.
  struct Block {
    int64_t channels = 0;
    std::vector<Resnet> resnets;
    LinearWeight expansion;  // of an up block
    Stride3d stride;
    int64_t expanded_channels = 0;
  };

  FrameChain Begin(int64_t run_positions, const RunLength& runs) const;

  MochiVaeConfig config_;
  WeightRef conv_in_weight_, conv_in_bias_;
  std::vector<Block> blocks_;  // block_in, the up blocks, block_out
  LinearWeight proj_out_;
};

}  // namespace kino::engine
