// LTX-Video's diffusion transformer (arXiv 2501.00103; diffusers 0.42.1
// models/transformers/transformer_ltx.py), of the size its config.json says (2B and 13B published).
// Immutable once configured; one thread at a time.
//
// Prepare computes once per prompt what does not change from step to step: the caption projection
// and every block's cross-attention keys and values, the rotary table, the embedding of each
// distinct timestep. Forward is the loop body and reads no weight that Prepare owns.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/core/run_context.h"
#include "engine/memory/component.h"
#include "engine/models/ltx/transformer_config.h"
#include "engine/nn/block_stack.h"
#include "engine/nn/mlp.h"
#include "engine/nn/timestep_embedding.h"
#include "engine/ops/norm_modulate.h"
#include "engine/ops/norm_rotary.h"

namespace kino::engine {

class LtxTransformer final : public Component {
 public:
  using Config = LtxTransformerConfig;
  // See MakeComponent.
  LtxTransformer(const LtxTransformerConfig& config, const ComponentFiles& files,
                 c10::ScalarType dtype, c10::Device device);

  // One prompt over one sequence of tokens and one schedule. Values; sharing tensors with the
  // Prepared it was made like.
  struct Prepared {
    std::vector<at::Tensor> keys, values;  // of each block: [1, L, D]
    RotaryTable rotary;                    // [S, D / 2]
    at::Tensor modulation;                 // [timesteps, 6, D]
    at::Tensor embedded_timestep;          // [timesteps, D]
  };
  // text: [1, L, caption_channels] without padding. positions: of each token its second, pixel row
  // and pixel column, [S, 3] float32. timesteps: each distinct value once, 0..1000. `like`, if
  // given, was prepared for the same positions and timesteps.
  Prepared Prepare(const at::Tensor& text, const at::Tensor& positions,
                   const std::vector<float>& timesteps, const Prepared* like,
                   const RunContext& context) const;

  // One denoise step. latents: [B, S, in_channels], one row of B per Prepared, all over the same
  // schedule; spans tell which timestep each token is at -> [B, S, out_channels] in the
  // transformer's dtype.
  at::Tensor Forward(absl::Span<const Prepared* const> rows, const TokenSpans& spans,
                     const at::Tensor& latents, const RunContext& context) const;

  const LtxTransformerConfig& config() const { return config_; }
  // For tests.
  bool OwnedByPrepare(const std::string& group) const;

 private:
  struct SelfAttention {
    LinearWeight q, k, v, out;
    WeightRef norm_q, norm_k;
  };
  struct CrossAttention {
    LinearWeight q, out;
    WeightRef norm_q;
    LinearWeight k, v;  // Prepare's
    WeightRef norm_k;   // Prepare's
  };
  struct Block {
    WeightRef scale_shift_table;
    SelfAttention self;
    CrossAttention cross;
    Mlp feed_forward;
  };

  RotaryTable MakeRotaryTable(const at::Tensor& positions) const;
  void RunBlock(const Block& block, int index, absl::Span<const Prepared* const> rows,
                const at::Tensor& modulation, const TokenSpans& spans, at::Tensor& hidden,
                const RunContext& context) const;

  LtxTransformerConfig config_;
  LinearWeight proj_in_, proj_out_;
  WeightRef scale_shift_table_;
  // Prepare's.
  std::unique_ptr<TimestepEmbedder> time_embedder_;
  LinearWeight time_linear_;
  std::unique_ptr<Mlp> caption_projection_;
  std::vector<Block> blocks_;
  std::unique_ptr<BlockStack> prepare_stack_;
  std::unique_ptr<BlockStack> stack_;
};

}  // namespace kino::engine
