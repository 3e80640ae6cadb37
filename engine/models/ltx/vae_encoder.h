// LTXVideoEncoder3d: pixels to the moments of the latent distribution, a run of frames at a time.
// The weights do not change; an object and its states belong to one thread at a time.
// Source: diffusers 0.42.1 models/autoencoders/autoencoder_kl_ltx.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "engine/core/run_context.h"
#include "engine/models/ltx/vae_config.h"
#include "engine/models/ltx/vae_layers.h"
#include "engine/weights/weight_set.h"

namespace kino::engine {

class LtxVaeEncoder {
 private:
  struct DownBlock {
    std::vector<LtxVaeResnet> resnets;
    std::optional<LtxTemporalConv> strided_conv;
    std::optional<LtxVaeDownsampler> downsampler;
    std::optional<LtxVaeResnet> conv_out;
  };
  struct DownState {
    std::vector<LtxVaeResnet::State> resnets;
    LtxTemporalConv::State strided_conv;
    LtxVaeDownsampler::State downsampler;
    LtxVaeResnet::State conv_out;
  };

 public:
  // What the layers remember of the frames pushed so far.
  class State {
    friend class LtxVaeEncoder;
    LtxTemporalConv::State conv_in;
    std::vector<DownState> down_blocks;
    std::vector<LtxVaeResnet::State> mid_block;
    LtxTemporalConv::State conv_out;
  };

  LtxVaeEncoder(const LtxVaeConfig& config, const WeightScope& scope);
  State Start() const;
  // video: [1, 3, T, H, W] in -1..1, the weights' dtype, H and W multiples of the compression ratio
  // -> moments of the latent frames that are known by now, [1, 2 * C, F, h, w], undefined when
  // none: means, then log variances. Throws StatusError when the run is cancelled.
  at::Tensor Push(State& state, const at::Tensor& video, bool last,
                  const RunContext& context) const;

 private:
  at::Tensor PushDownBlock(const DownBlock& block, DownState& state, at::Tensor frames, bool last,
                           const RunContext& context) const;

  int64_t patch_size_;
  LtxTemporalConv conv_in_;
  std::vector<DownBlock> down_blocks_;
  std::vector<LtxVaeResnet> mid_block_;
  LtxTemporalConv conv_out_;
};

}  // namespace kino::engine
