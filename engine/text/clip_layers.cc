#include "engine/text/clip_layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/layer_norm.h>

#include <utility>

#include "engine/ops/attention.h"

namespace kino::engine {
namespace {

Mlp::Activation ActivationOf(ClipActivation activation) {
  switch (activation) {
    case ClipActivation::kQuickGelu:
      return Mlp::Activation::kQuickGelu;
    case ClipActivation::kGelu:
      return Mlp::Activation::kGelu;
    case ClipActivation::kGeluTanh:
      break;
  }
  return Mlp::Activation::kGeluTanh;
}

}  // namespace

at::Tensor ClipNorm(const at::Tensor& x, const WeightAndBias& norm, double eps) {
  return at::layer_norm(x, {x.size(-1)}, *norm.weight.get(), *norm.bias.get(), eps);
}

ClipLayers::ClipLayers(Component& component, const WeightScope& scope,
                       const ClipLayersConfig& config, int count, bool causal)
    : config_(config), causal_(causal) {
  const int64_t d = config_.hidden_size;
  std::vector<WeightGroup*> groups = component.weights().AddGroups("layers", count);
  for (int i = 0; i < count; ++i) {
    const WeightScope layer = scope.Sub("layers", i).In(*groups[static_cast<size_t>(i)]);
    const WeightScope attention = layer.Sub("self_attn");
    layers_.push_back(
        {.norm1 = layer.Sub("layer_norm1").WithBias({d}),
         .norm2 = layer.Sub("layer_norm2").WithBias({d}),
         .q = attention.Linear("q_proj", d, d),
         .k = attention.Linear("k_proj", d, d),
         .v = attention.Linear("v_proj", d, d),
         .out = attention.Linear("out_proj", d, d),
         .mlp = Mlp::TwoLayers(layer.Sub("mlp"), "fc1", "fc2",
                               {.in = d, .inner = config_.intermediate_size, .out = d},
                               ActivationOf(config_.activation))});
  }
  stack_ = std::make_unique<BlockStack>(component.residency(), std::move(groups));
}

at::Tensor ClipLayers::RunLayer(const Layer& layer, at::Tensor hidden) const {
  const AttentionContext context{.causal = causal_};
  at::Tensor normed = ClipNorm(hidden, layer.norm1, config_.layer_norm_eps);
  hidden = hidden +
           layer.out.Apply(Attention(layer.q.Apply(normed), layer.k.Apply(normed),
                                     layer.v.Apply(normed), config_.num_attention_heads, context));
  normed = ClipNorm(hidden, layer.norm2, config_.layer_norm_eps);
  return hidden + layer.mlp.Forward(normed);
}

void ClipLayers::Run(const RunContext& context, Streams& streams) const {
  stack_->Run(context, streams, [&](int i, Streams& between) {
    for (at::Tensor& states : between)
      states = RunLayer(layers_[static_cast<size_t>(i)], std::move(states));
  });
}

}  // namespace kino::engine
