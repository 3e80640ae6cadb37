// LTXVideoEncoder3d: pixels to the moments of the latent distribution, a run of frames at a time in
// each layer. The weights do not change; an object and its chains belong to one thread at a time.
// Source: diffusers 0.42.1 models/autoencoders/autoencoder_kl_ltx.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "engine/models/ltx/vae_config.h"
#include "engine/models/ltx/vae_layers.h"
#include "engine/nn/frame_chain.h"
#include "engine/nn/run_length.h"
#include "engine/weights/weight_set.h"

namespace kino::engine {

class LtxVaeEncoder {
 public:
  LtxVaeEncoder(const LtxVaeConfig& config, const WeightScope& scope);

  // Takes frames of height x width pixels, multiples of the compression ratio, [T, H, W, 3] in
  // -1..1 in the weights' dtype, and gives moments [F, h, w, 2 * C]: means, then log variances. The
  // encoder outlives it.
  FrameChain Begin(int64_t height, int64_t width, const RunLength& runs) const;

 private:
  struct DownBlock {
    std::vector<LtxVaeResnet> resnets;
    std::optional<CausalConv3d> strided_conv;
    std::optional<LtxVaeDownsampler> downsampler;
    std::optional<LtxVaeResnet> conv_out;
    Stride3d stride;
    int64_t in_channels = 0;
    int64_t out_channels = 0;
  };

  // Patches of pixels, conv_in.
  at::Tensor FirstLayer(CausalConv3d::State& state, at::Tensor video, bool last) const;
  // conv_norm_out, the activation and conv_out; its log variance for all channels.
  at::Tensor LastLayer(CausalConv3d::State& state, at::Tensor frames, bool last) const;

  int64_t patch_size_;
  int64_t channels_;  // behind conv_in
  CausalConv3d conv_in_;
  std::vector<DownBlock> down_blocks_;
  std::vector<LtxVaeResnet> mid_block_;
  CausalConv3d conv_out_;
};

}  // namespace kino::engine
