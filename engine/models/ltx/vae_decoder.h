// LTXVideoDecoder3d: latents to pixels, a run of latent frames at a time.
//
// With a decoder that is not causal each layer waits for the right neighbours of its frames, so the
// first pushes may give no picture; whatever the cutting into runs, the frames are those of one
// run. The weights do not change; an object and its states belong to one thread at a time. Source:
// diffusers 0.42.1 models/autoencoders/autoencoder_kl_ltx.py.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "engine/core/run_context.h"
#include "engine/models/ltx/vae_config.h"
#include "engine/models/ltx/vae_layers.h"
#include "engine/nn/timestep_embedding.h"
#include "engine/weights/weight_set.h"

namespace kino::engine {

class LtxVaeDecoder {
 private:
  // The mid block, or an up block.
  struct Block {
    std::optional<LtxVaeResnet> conv_in;
    std::optional<TimestepEmbedder> time_embedder;
    std::optional<LtxVaeUpsampler> upsampler;
    std::vector<LtxVaeResnet> resnets;
  };
  struct BlockState {
    LtxVaeResnet::State conv_in;
    LtxVaeUpsampler::State upsampler;
    std::vector<LtxVaeResnet::State> resnets;
  };

 public:
  // What the layers remember of the frames pushed so far, the modulation by the timestep and the
  // injected noise.
  class State {
    friend class LtxVaeDecoder;
    LtxTemporalConv::State conv_in;
    std::vector<BlockState> blocks;
    LtxVaeModulation modulation;
    LtxTemporalConv::State conv_out;
  };

  LtxVaeDecoder(const LtxVaeConfig& config, const WeightScope& scope);

  // For a video of latent height and width. timestep: [1], needed when the config says
  // timestep_conditioning. noise_generator (CPU) is needed when the config injects noise; all of it
  // is drawn here, in the order diffusers' forward draws it, in `options`' dtype.
  State Start(int64_t height, int64_t width, const at::Tensor& timestep,
              std::optional<at::Generator> noise_generator, const at::TensorOptions& options) const;
  // latents: [1, C, F, h, w] in the weights' dtype -> pixels in about -1..1 that are final by now,
  // [T, H, W, 3]; undefined when none is. Throws StatusError when the run is cancelled.
  at::Tensor Push(State& state, const at::Tensor& latents, bool last,
                  const RunContext& context) const;

 private:
  at::Tensor PushBlock(const Block& block, BlockState& state, at::Tensor frames, bool last,
                       const RunContext& context) const;

  int64_t patch_size_;
  LtxTemporalConv conv_in_;
  std::vector<Block> blocks_;  // the mid block, then the up blocks
  LtxTemporalConv conv_out_;
  WeightRef timestep_scale_multiplier_;
  std::optional<TimestepEmbedder> time_embedder_;
  WeightRef scale_shift_table_;
};

}  // namespace kino::engine
