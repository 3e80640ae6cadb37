// HunyuanVideo's diffusion transformer and FramePack's: blocks of two streams, video and text, that
// attend to each other, then blocks that take both as one sequence (diffusers 0.42.1
// models/transformers/transformer_hunyuan_video.py, transformer_hunyuan_video_framepack.py).
// Immutable once configured; one thread at a time.
//
// Prepare computes what does not change from step to step, among it all modulation of all steps:
// the weights that make it are a quarter of the model and are not needed in the loop. Padding does
// not exist here: a row has as many text tokens as its prompt. Forward is the loop body and reads
// no weight that Prepare or SetHistory owns.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "engine/core/run_context.h"
#include "engine/memory/component.h"
#include "engine/models/common/latents.h"
#include "engine/models/hunyuan_video/transformer_config.h"
#include "engine/nn/block_stack.h"
#include "engine/nn/joint_projections.h"
#include "engine/nn/mlp.h"
#include "engine/nn/parallel_mlp.h"
#include "engine/nn/timestep_embedding.h"
#include "engine/nn/token_refiner.h"
#include "engine/ops/joint_attention.h"
#include "engine/ops/norm_rotary.h"

namespace kino::engine {

// Of the latents.
using HunyuanVideoGrid = LatentGrid;

// One row of a batch.
struct HunyuanVideoText {
  at::Tensor tokens;  // [1, L, text_embed_dim], the language model's, L perhaps 0: no padding
  at::Tensor pooled;  // [1, pooled_projection_dim], CLIP's
  at::Tensor image;   // FramePack: SigLIP's tokens, [1, N, image_proj_dim]; undefined: none
};

// FramePack: what a section knows of the video so far. Frame indices place latents in time.
struct HunyuanVideoHistory {
  // latents: [B, C, F, h, w] of the section's height and width; undefined: none. indices: of the F
  // frames.
  struct Frames {
    at::Tensor latents;
    std::vector<int64_t> indices;
  };
  std::vector<int64_t> indices;      // of the latents that the section makes
  Frames clean, clean_2x, clean_4x;  // at full resolution, at a half and at a quarter
};

class HunyuanVideoTransformer final : public Component {
 public:
  using Config = HunyuanVideoTransformerConfig;
  // See MakeComponent.
  HunyuanVideoTransformer(const HunyuanVideoTransformerConfig& config, const ComponentFiles& files,
                          c10::ScalarType dtype, c10::Device device);

  // The rows of a batch, B prompts, on one grid over one schedule of T steps. A value.
  struct Prepared {
    HunyuanVideoGrid grid;
    int64_t first_frame = 0;  // tokens with a modulation of their own: token replacement
    JointLayout layout = {0, {}};
    RotaryTable rotary;  // of every joined token, [tokens, K / 2]; a text's are not turned
    at::Tensor history;  // tokens before the latents', [B, H, D]; undefined: none
    // Of each row: the refined text, [T, L, D], and the image's tokens before it, [1, N, D], or
    // undefined.
    std::vector<at::Tensor> texts, images;
    // Of each block. The parts are shift, scale and gate of attention, in a block of two streams
    // then those of the feed-forward: [T, parts, B, D] of the video or of both streams, with token
    // replacement [T + 1, ...], the last for the first frame's tokens; and [T, parts, B, D] of the
    // text of a block of two streams.
    std::vector<at::Tensor> modulation, text_modulation;
    at::Tensor out_modulation;  // [T, 2, B, 1, D]
  };
  // texts: of each row. timesteps: of each step. guidance: 1000 times the embedded scale; it is
  // rounded to the transformer's dtype, as diffusers' pipelines pass it (they round the scale
  // before as well). Required where the config has guidance_embeds, else not looked at.
  Prepared Prepare(const std::vector<HunyuanVideoText>& texts, const HunyuanVideoGrid& grid,
                   const std::vector<float>& timesteps, std::optional<float> guidance,
                   const RunContext& context) const;

  // FramePack: replaces the history of `prepared`, which has none at first, and the places in time
  // of its latents, which are 0, 1, ... at first. REQUIRES: the config's is_framepack; as many
  // indices as frames.
  void SetHistory(Prepared& prepared, const HunyuanVideoHistory& history) const;

  // One denoise step. latents: [B, in_channels, F, h, w] -> [B, out_channels, F, h, w] in the
  // transformer's dtype.
  at::Tensor Forward(const Prepared& prepared, int step, const at::Tensor& latents,
                     const RunContext& context) const;

  const HunyuanVideoTransformerConfig& config() const { return config_; }

 private:
  struct Stream {
    JointProjections projections;
    LinearWeight modulation;  // Prepare's
    LinearWeight out;
    std::unique_ptr<Mlp> feed_forward;
  };
  struct DualBlock {
    Stream video, text;
  };
  struct SingleBlock {
    JointProjections projections;
    LinearWeight modulation;  // Prepare's
    ParallelMlp feed_forward;
  };

  void MakeBlocks(std::vector<WeightGroup*>& groups, std::vector<WeightGroup*>& prepare_groups);
  // [T, B, D]: of each step, and with token replacement of timestep 0 behind them.
  at::Tensor Conditions(const std::vector<HunyuanVideoText>& texts, const at::Tensor& times,
                        std::optional<float> guidance) const;
  RotaryTable FrameAngles(const std::vector<int64_t>& indices, const HunyuanVideoGrid& grid) const;
  // Puts every token in its place: `video` has the angles of a row's.
  void Arrange(Prepared& prepared, const RotaryTable& video) const;
  at::Tensor EmbedHistory(const WeightAndBias& layer, const at::Tensor& latents,
                          int64_t shrink) const;
  at::Tensor PackedText(const Prepared& prepared, int step) const;
  void RunDual(int index, const Prepared& prepared, int step, at::Tensor& video, at::Tensor& text,
               const RunContext& context) const;
  void RunSingle(int index, const Prepared& prepared, int step, at::Tensor& tokens,
                 const RunContext& context) const;

  HunyuanVideoTransformerConfig config_;
  WeightAndBias patch_;
  LinearWeight proj_out_;
  std::vector<DualBlock> dual_;
  std::vector<SingleBlock> single_;
  // Prepare's and SetHistory's.
  std::unique_ptr<TimestepEmbedder> time_embedder_, guidance_embedder_;
  std::unique_ptr<Mlp> text_embedder_;
  std::unique_ptr<TokenRefiner> refiner_;
  LinearWeight image_up_, image_down_, out_modulation_;
  WeightAndBias clean_, clean_2x_, clean_4x_;
  std::unique_ptr<BlockStack> prepare_stack_, stack_;
};

}  // namespace kino::engine
