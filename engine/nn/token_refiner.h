// The layers between a language model and a transformer: a text's tokens attend to each other in a
// few blocks that the timestep and the text's mean gate (diffusers 0.42.1
// transformer_hunyuan_video.py: HunyuanVideoTokenRefiner). Immutable after construction; one thread
// at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/core/run_context.h"
#include "engine/memory/component.h"
#include "engine/nn/block_stack.h"
#include "engine/nn/mlp.h"
#include "engine/nn/timestep_embedding.h"
#include "engine/weights/weight_set.h"

namespace kino::engine {

class TokenRefiner {
 public:
  struct Options {
    int64_t in = 0;  // width of a text's tokens
    int64_t heads = 0;
    int64_t width = 0;
    int layers = 0;
  };
  // `component` owns the weights, `scope` holds time_text_embed, proj_in and token_refiner. Each
  // block's are a group of its own of `part`.
  TokenRefiner(Component& component, const WeightScope& scope, const std::string& part,
               const Options& options);

  // texts: of each row, [1, L, in] in the dtype of computation, L its own and perhaps 0, without
  // padding: the reference's mask of padding leaves the same keys. times: [T] float32, the
  // timestep of each step -> of each row, [T, L, width].
  std::vector<at::Tensor> Refine(const std::vector<at::Tensor>& texts, const at::Tensor& times,
                                 const RunContext& context) const;

 private:
  struct Block {
    WeightAndBias norm1, norm2;
    LinearWeight q, k, v, out, gates;
    std::unique_ptr<Mlp> feed_forward;
  };
  void RunBlock(const Block& block, const at::Tensor& condition, at::Tensor& hidden,
                const RunContext& context) const;

  Options options_;
  std::unique_ptr<TimestepEmbedder> time_embedder_;
  std::unique_ptr<Mlp> text_embedder_;
  LinearWeight proj_in_;
  std::vector<Block> blocks_;
  std::unique_ptr<BlockStack> stack_;
};

}  // namespace kino::engine
