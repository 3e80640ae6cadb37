// AutoencoderKLAllegro's decoder: Allegro's latents to pixels, a tile at a time. Layers over space
// take turns with layers over time, whose norms look at all frames of a tile. Text to video needs
// no encoder: its weights may be in the file and are not loaded. Immutable once configured; one
// thread at a time. Source: diffusers 0.42.1 models/autoencoders/autoencoder_kl_allegro.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "engine/memory/component.h"
#include "engine/models/allegro/vae_config.h"
#include "engine/models/common/clip_tiles.h"
#include "engine/nn/frame_layers.h"

namespace kino::engine {

class AllegroVae final : public Component {
 public:
  using Config = AllegroVaeConfig;
  // See MakeComponent.
  AllegroVae(const AllegroVaeConfig& config, const ComponentFiles& files, c10::ScalarType dtype,
             c10::Device device);

  const AllegroVaeConfig& config() const { return config_; }

  // latents: [1, C, F, h, w], unscaled, in the weights' dtype -> the first `frames` frames.
  std::unique_ptr<DecodeStream> Decode(const at::Tensor& latents, const VaeTileSizes& tiles,
                                       int64_t frames) const;

 private:
  struct Step {
    FrameResnet resnet;
    TemporalResnet temporal;
  };
  struct Block {
    std::vector<Step> steps;
    std::optional<FrameAttention> attention;    // behind the first step
    std::optional<TemporalResnet> doubling;     // of frames
    std::optional<FrameConvolution> upsampled;  // behind the doubling of height and width
  };

  void AddStep(const WeightScope& block, int64_t in, int64_t out);
  at::Tensor DecodeTile(const at::Tensor& latents, const RunContext& context) const;

  AllegroVaeConfig config_;
  FrameConvolution post_quant_, conv_in_, temp_conv_in_, temp_conv_out_, conv_out_;
  std::vector<Block> blocks_;  // mid_block, then the up blocks
  GroupNorm norm_out_;
};

}  // namespace kino::engine
