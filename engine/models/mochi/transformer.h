// Mochi-1's diffusion transformer: video and text in two streams of different widths, which attend
// to each other in every block (diffusers 0.42.1 models/transformers/transformer_mochi.py).
// Immutable once configured; one thread at a time.
//
// Prepare computes what does not change from step to step, among it all modulation of all steps:
// the weights that make it are a quarter of the model and are not needed in the loop. Masked text
// does not exist here: a row has as many text tokens as its prompt. Forward is the loop body and
// reads no weight that Prepare owns.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/core/run_context.h"
#include "engine/memory/component.h"
#include "engine/models/mochi/transformer_config.h"
#include "engine/nn/block_stack.h"
#include "engine/nn/joint_projections.h"
#include "engine/nn/mlp.h"
#include "engine/nn/timestep_embedding.h"
#include "engine/ops/joint_attention.h"
#include "engine/ops/norm_rotary.h"

namespace kino::engine {

// Of the latents.
struct MochiGrid {
  int64_t frames = 0, height = 0, width = 0;
};

class MochiTransformer final : public Component {
 public:
  using Config = MochiTransformerConfig;
  // See MakeComponent.
  MochiTransformer(const MochiTransformerConfig& config, const ComponentFiles& files,
                   c10::ScalarType dtype, c10::Device device);

  // The rows of a batch, B prompts, on one grid over one schedule of T steps. A value.
  struct Prepared {
    JointLayout layout;
    RotaryTable rotary;  // [S, D / 2]
    at::Tensor text;     // packed [1, tokens, pooled_projection_dim], before the first block
    // Of each block. A part is [B, 1, D] of the video and [B, W] of the text: the scale and gate of
    // attention, then of the feed-forward; the last block's text has one scale.
    std::vector<at::Tensor> video_modulation;  // [T, 4, B, 1, D]
    std::vector<at::Tensor> text_modulation;   // [T, 4 or 1, B, W]
    at::Tensor out_modulation;                 // scale and shift: [T, 2, B, 1, D]
  };
  // texts: of each row, [1, L, text_embed_dim], L its own and perhaps 0. timesteps: of each step.
  Prepared Prepare(const std::vector<at::Tensor>& texts, const MochiGrid& grid,
                   const std::vector<float>& timesteps, const RunContext& context) const;

  // One denoise step. latents: [B, C, F, h, w] -> the same in the transformer's dtype.
  at::Tensor Forward(const Prepared& prepared, int step, const at::Tensor& latents,
                     const RunContext& context) const;

  const MochiTransformerConfig& config() const { return config_; }

 private:
  // The layers of one stream in a block.
  struct Stream {
    JointProjections projections;
    LinearWeight out;
    std::unique_ptr<Mlp> feed_forward;  // none in the last block's text
    LinearWeight modulation;            // Prepare's
  };
  struct Block {
    Stream video, text;
  };

  RotaryTable MakeRotaryTable(const MochiGrid& grid) const;
  at::Tensor PoolText(const at::Tensor& text) const;
  void RunBlock(int index, const Prepared& prepared, int step, Streams& streams,
                const RunContext& context) const;

  MochiTransformerConfig config_;
  WeightRef patch_weight_, patch_bias_;
  LinearWeight proj_out_;
  std::vector<Block> blocks_;
  // Prepare's.
  std::unique_ptr<TimestepEmbedder> time_embedder_;
  LinearWeight pool_kv_, pool_q_, pool_out_, caption_projection_, out_modulation_;
  WeightRef frequencies_;
  std::unique_ptr<BlockStack> prepare_stack_;
  std::unique_ptr<BlockStack> stack_;
};

}  // namespace kino::engine
