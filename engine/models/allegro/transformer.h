// Allegro's diffusion transformer: PixArt's blocks over a video's tokens, self-attention turned by
// position on three axes, cross-attention to the prompt (diffusers 0.42.1
// models/transformers/transformer_allegro.py). Immutable once configured; one thread at a time.
//
// Prepare computes once per request what does not change from step to step: caption projection,
// every block's cross-attention keys and values, the rotary table, the modulation of all steps.
// diffusers adds -10000 to the keys of a prompt's padding, which is exactly 0 after the softmax:
// here a row has as many keys as its prompt has tokens. Forward is the loop body and reads no
// weight that Prepare owns.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "engine/core/run_context.h"
#include "engine/memory/component.h"
#include "engine/models/allegro/transformer_config.h"
#include "engine/models/common/latents.h"
#include "engine/nn/block_stack.h"
#include "engine/nn/mlp.h"
#include "engine/nn/timestep_embedding.h"
#include "engine/ops/half_rotary.h"

namespace kino::engine {

class AllegroTransformer final : public Component {
 public:
  using Config = AllegroTransformerConfig;
  // See MakeComponent.
  AllegroTransformer(const AllegroTransformerConfig& config, const ComponentFiles& files,
                     c10::ScalarType dtype, c10::Device device);

  // The rows of a batch, B prompts, on one grid over one schedule of T steps. A value.
  struct Prepared {
    // Of each block and each row: [1, L, D].
    std::vector<std::vector<at::Tensor>> keys, values;
    RotaryTable rotary;            // [S, half a head]
    at::Tensor modulation;         // [T, 6, D]
    at::Tensor embedded_timestep;  // [T, D]
  };
  // texts: of each row, [1, L, caption_channels], without padding. timesteps: of each step.
  Prepared Prepare(const std::vector<at::Tensor>& texts, const LatentGrid& grid,
                   const std::vector<float>& timesteps, const RunContext& context) const;

  // One denoise step. latents: [B, C, F, h, w] -> the same in the transformer's dtype.
  at::Tensor Forward(const Prepared& prepared, int step, const at::Tensor& latents,
                     const RunContext& context) const;

  const AllegroTransformerConfig& config() const { return config_; }

 private:
  struct AttentionLayers {
    LinearWeight q, k, v, out;
  };
  struct Block {
    WeightRef scale_shift_table;
    AttentionLayers self;
    AttentionLayers cross;  // k and v are Prepare's
    Mlp feed_forward;
  };

  void RunBlock(int index, const Prepared& prepared, int step, at::Tensor& hidden,
                const RunContext& context) const;

  AllegroTransformerConfig config_;
  WeightRef patch_weight_, patch_bias_;
  LinearWeight proj_out_;
  WeightRef scale_shift_table_;
  std::vector<Block> blocks_;
  // Prepare's.
  std::unique_ptr<TimestepEmbedder> time_embedder_;
  LinearWeight time_linear_;
  std::unique_ptr<Mlp> caption_projection_;
  std::unique_ptr<BlockStack> prepare_stack_;
  std::unique_ptr<BlockStack> stack_;
};

}  // namespace kino::engine
