// LTXVideoDecoder3d: latents to pixels, a run of frames at a time in each layer.
//
// With a decoder that is not causal each layer waits for the right neighbours of its frames, so the
// first latents may give no picture; whatever the cutting into runs, the frames are those of one
// run. The weights do not change; an object and its chains belong to one thread at a time. Source:
// diffusers 0.42.1 models/autoencoders/autoencoder_kl_ltx.py.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "engine/models/ltx/vae_config.h"
#include "engine/models/ltx/vae_layers.h"
#include "engine/nn/frame_chain.h"
#include "engine/nn/run_length.h"
#include "engine/nn/timestep_embedding.h"
#include "engine/weights/weight_set.h"

namespace kino::engine {

class LtxVaeDecoder {
 public:
  struct Start {
    int64_t height = 0;  // of the latents
    int64_t width = 0;
    // Runs are cut for frames of so many latents: tiles that advance together need the same.
    int64_t run_positions = 0;
    RunLength runs;
    at::Tensor timestep;  // [1], needed when the config says timestep_conditioning
    // On the CPU; needed when the config injects noise.
    std::optional<at::Generator> noise_generator;
    at::TensorOptions options;  // of the latents
  };

  LtxVaeDecoder(const LtxVaeConfig& config, const WeightScope& scope);

  // Takes latents [F, h, w, C] in the weights' dtype and gives pixels in about -1..1, [T, H, W, 3].
  // All noise is drawn here, in the order diffusers' forward draws it. The decoder outlives it.
  FrameChain Begin(const Start& start) const;

 private:
  // The mid block, or an up block.
  struct Block {
    std::optional<LtxVaeResnet> conv_in;
    std::optional<TimestepEmbedder> time_embedder;
    std::optional<LtxVaeUpsampler> upsampler;
    std::vector<LtxVaeResnet> resnets;
    int64_t in_channels = 0;
    int64_t channels = 0;  // of the resnets
  };

  // conv_norm_out, the activation and conv_out, then patches to pixels.
  at::Tensor Finish(CausalConv3d::State& state, const ChannelModulation& modulation,
                    at::Tensor frames, bool last) const;

  int64_t patch_size_;
  int64_t channels_;  // behind conv_in
  CausalConv3d conv_in_;
  std::vector<Block> blocks_;  // the mid block, then the up blocks
  CausalConv3d conv_out_;
  WeightRef timestep_scale_multiplier_;
  std::optional<TimestepEmbedder> time_embedder_;
  WeightRef scale_shift_table_;
};

}  // namespace kino::engine
