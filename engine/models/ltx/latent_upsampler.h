// LTXLatentUpsamplerModel: makes latents twice as wide and high, or twice as long, or both.
// Immutable once configured; used by one thread at a time. Source: diffusers 0.42.1
// pipelines/ltx/modeling_latent_upsampler.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "engine/core/run_context.h"
#include "engine/memory/component.h"
#include "engine/models/ltx/latent_upsampler_config.h"
#include "engine/nn/block_stack.h"
#include "engine/nn/frame_layers.h"

namespace kino::engine {

class LtxLatentUpsampler final : public Component {
 public:
  using Config = LtxLatentUpsamplerConfig;
  // See MakeComponent.
  LtxLatentUpsampler(const Config& config, const ComponentFiles& files, c10::ScalarType dtype,
                     c10::Device device);

  const Config& config() const { return config_; }
  // latents: [1, C, F, h, w], denormalised -> the same in the weights' dtype, [1, C, F * t, h * s,
  // w
  // * s], without the first frame where t is 2. Throws StatusError when the run is cancelled.
  at::Tensor Forward(const at::Tensor& latents, const RunContext& context) const;

 private:
  struct Block {
    FrameConvolution conv1, conv2;
    GroupNorm norm1, norm2;
  };
  // Blocks that follow each other at one size.
  struct Part {
    std::vector<Block> blocks;
    std::optional<BlockStack> stack;
  };

  Part MakePart(const std::string& name);
  at::Tensor Run(const Part& part, at::Tensor frames, const RunContext& context) const;
  at::Tensor Convolve(const FrameConvolution& convolution, const at::Tensor& frames) const;
  GroupNorm::Over over() const;

  const Config config_;
  FrameConvolution initial_conv_, upsampler_, final_conv_;
  GroupNorm initial_norm_;
  Part before_, behind_;
};

}  // namespace kino::engine
