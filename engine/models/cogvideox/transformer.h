// CogVideoX's diffusion transformer: text and then video in one sequence, which every layer takes
// as a whole; only modulation and positions tell the two apart (diffusers 0.42.1
// models/transformers/cogvideox_transformer_3d.py). Immutable once configured; one thread at a
// time.
//
// Prepare computes what does not change from step to step, among it all modulation of all steps.
// Forward is the loop body and reads no weight that Prepare owns.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <memory>
#include <vector>

#include "engine/core/run_context.h"
#include "engine/memory/component.h"
#include "engine/models/cogvideox/transformer_config.h"
#include "engine/models/common/latents.h"
#include "engine/nn/block_stack.h"
#include "engine/nn/mlp.h"
#include "engine/nn/timestep_embedding.h"
#include "engine/ops/norm_modulate.h"
#include "engine/ops/norm_rotary.h"

namespace kino::engine {

class CogVideoXTransformer final : public Component {
 public:
  using Config = CogVideoXTransformerConfig;
  // See MakeComponent.
  CogVideoXTransformer(const CogVideoXTransformerConfig& config, const ComponentFiles& files,
                       c10::ScalarType dtype, c10::Device device);

  // The rows of a batch, B prompts, on one grid over one schedule of T steps. A value.
  struct Prepared {
    at::Tensor text;       // [B, L, D], before the first block
    at::Tensor positions;  // of the video's tokens, [S, D], to add; undefined: none
    RotaryTable rotary;    // of the video's tokens, [S, K / 2]; undefined: none
    TokenSpans spans;      // row 1 of a table for text, 0 for video
    // Of each block's two norms, shift, scale and gate: [T, 3, 2, D].
    std::vector<std::array<at::Tensor, 2>> modulation;
    at::Tensor out_modulation;  // shift and scale: [T, 2, 1, D]
  };
  // texts: of each row, [1, L, text_embed_dim], all of one length. timesteps: of each step.
  Prepared Prepare(const std::vector<at::Tensor>& texts, const LatentGrid& grid,
                   const std::vector<float>& timesteps, const RunContext& context) const;

  // One denoise step. latents: [B, F, in_channels, h, w] -> [B, F, out_channels, h, w] in the
  // transformer's dtype.
  at::Tensor Forward(const Prepared& prepared, int step, const at::Tensor& latents,
                     const RunContext& context) const;

  const CogVideoXTransformerConfig& config() const { return config_; }

 private:
  struct Block {
    std::array<WeightAndBias, 2> norms;       // before attention, before the feed-forward
    std::array<LinearWeight, 2> modulations;  // Prepare's
    LinearWeight q, k, v, out;
    WeightAndBias norm_q, norm_k;
    std::unique_ptr<Mlp> feed_forward;
  };

  RotaryTable MakeRotaryTable(const LatentGrid& grid) const;
  // Of the text's tokens and the video's, [L + S, D] in double or as the file has them.
  at::Tensor MakePositions(const LatentGrid& grid) const;
  void RunBlock(int index, const Prepared& prepared, int step, at::Tensor& tokens,
                const RunContext& context) const;

  CogVideoXTransformerConfig config_;
  LinearWeight patch_linear_;            // of the kind with patch_size_t
  WeightRef patch_weight_, patch_bias_;  // of the other, a convolution's
  WeightAndBias norm_final_, norm_out_;
  LinearWeight proj_out_;
  std::vector<Block> blocks_;
  // Prepare's.
  std::unique_ptr<TimestepEmbedder> time_embedder_, ofs_embedder_;
  LinearWeight text_projection_, out_modulation_;
  WeightRef positions_;
  std::unique_ptr<BlockStack> prepare_stack_, stack_;
};

}  // namespace kino::engine
