// The transformer layers that CLIP's text encoder, CLIP's and SigLIP's vision encoders share
// (transformers 5.23 CLIPEncoderLayer, SiglipEncoderLayer): norm, attention, norm, feed-forward,
// with residuals. Immutable after construction; one thread at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "engine/core/run_context.h"
#include "engine/memory/component.h"
#include "engine/nn/block_stack.h"
#include "engine/nn/mlp.h"
#include "engine/text/clip_config.h"

namespace kino::engine {

// A LayerNorm over the last axis, [..., D] -> [..., D] in x's dtype.
at::Tensor ClipNorm(const at::Tensor& x, const WeightAndBias& norm, double eps);

class ClipLayers {
 public:
  // The first `count` layers, named SCOPE.layers.N, each in a group of its own. causal: a token
  // attends to those before it and itself.
  ClipLayers(Component& component, const WeightScope& scope, const ClipLayersConfig& config,
             int count, bool causal);
  // streams: of each prompt or image, [1, L, D], in place. Each by itself.
  void Run(const RunContext& context, Streams& streams) const;

 private:
  struct Layer {
    WeightAndBias norm1, norm2;
    LinearWeight q, k, v, out;
    Mlp mlp;
  };
  at::Tensor RunLayer(const Layer& layer, at::Tensor hidden) const;

  ClipLayersConfig config_;
  bool causal_;
  std::vector<Layer> layers_;
  std::unique_ptr<BlockStack> stack_;
};

}  // namespace kino::engine
