#include "engine/text/vision_encoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/core/status.h"
#include "engine/core/status_bridge.h"
#include "engine/ops/linear.h"

namespace kino::engine {
namespace {

// What comes before a vision model's names: a SiglipVisionModel's of transformers 5 and 4, a
// LLaVA's of 4, and of 5, and a LlavaModel's.
constexpr const char* kPrefixes[] = {"",
                                     "vision_model.",
                                     "vision_tower.vision_model.",
                                     "model.vision_tower.",
                                     "model.vision_tower.vision_model.",
                                     "vision_tower."};

WeightScope ScopeOfTower(const WeightScope& all) {
  for (const char* prefix : kPrefixes) {
    const std::string_view name(prefix);
    const WeightScope scope = name.empty() ? all : all.Sub(name.substr(0, name.size() - 1));
    if (scope.Has("embeddings.patch_embedding.weight")) return scope;
  }
  return all;
}

// What the files hold beside the tower and the projector: heads, layers that are not run, and a
// LLaVA's language model.
void AllowTheRest(WeightSet& weights, const VisionEncoderConfig& config) {
  for (const char* prefix : kPrefixes) {
    for (int i = config.layers_run; i < config.layers.num_hidden_layers; ++i)
      weights.AllowUnexpected(absl::StrCat(prefix, "encoder.layers.", i, "."));
    weights.AllowUnexpected(absl::StrCat(prefix, "embeddings.position_ids"));
    weights.AllowUnexpected(absl::StrCat(prefix, config.is_siglip ? "head." : "post_layernorm."));
  }
  if (config.is_siglip) return;
  for (const char* rest : {"language_model.", "model.language_model.", "lm_head."})
    weights.AllowUnexpected(rest);
}

}  // namespace

VisionEncoder::VisionEncoder(const VisionEncoderConfig& config, const ComponentFiles& files,
                             c10::ScalarType dtype, c10::Device device)
    : Component(files, dtype, device), config_(config) {
  const int64_t d = config_.layers.hidden_size, p = config_.patch_size;
  AllowTheRest(weights(), config_);
  const WeightScope all(weights(), weights().AddGroup("embeddings"));
  const WeightScope tower = ScopeOfTower(all), embeddings = tower.Sub("embeddings");
  patch_weight_ = embeddings.Get("patch_embedding.weight", {d, config_.num_channels, p, p},
                                 LayerKind::kConvolution);
  if (config_.is_siglip) {
    patch_bias_ = embeddings.Get("patch_embedding.bias", {d}, LayerKind::kConvolution);
  } else {
    class_embedding_ = embeddings.Get("class_embedding", {d});
    pre_norm_ = tower.Sub("pre_layrnorm").WithBias({d});  // transformers spells it so
  }
  const int64_t positions = config_.patches() + (config_.is_siglip ? 0 : 1);
  position_embedding_ =
      embeddings.Get("position_embedding.weight", {positions, d}, LayerKind::kEmbedding);
  layers_ = std::make_unique<ClipLayers>(*this, tower.Sub("encoder"), config_.layers,
                                         config_.layers_run, /*causal=*/false);
  WeightGroup& last = weights().AddGroup(config_.is_siglip ? "post_layernorm" : "projector");
  if (config_.is_siglip) {
    post_norm_ = tower.Sub("post_layernorm").In(last).WithBias({d});
  } else {
    const WeightScope model = all.Has("model.multi_modal_projector.linear_1.weight")
                                  ? all.Sub("model.multi_modal_projector")
                                  : all.Sub("multi_modal_projector");
    projector_ = std::make_unique<Mlp>(
        Mlp::TwoLayers(model.In(last), "linear_1", "linear_2",
                       {.in = d, .inner = config_.projection_size, .out = config_.projection_size},
                       Mlp::Activation::kGelu, config_.projector_bias));
  }
}

at::Tensor VisionEncoder::Embed(const at::Tensor& pixels) const {
  const int64_t size = config_.image_size, p = config_.patch_size, channels = config_.num_channels,
                d = config_.layers.hidden_size, side = size / p;
  if (pixels.sizes() != at::IntArrayRef({1, channels, size, size})) {
    throw StatusError(absl::InvalidArgumentError(absl::StrCat(
        "an image of shape [", absl::StrJoin(pixels.sizes(), ", "), "], but the vision encoder '",
        weights().checkpoint().folder(), "' takes [1, ", channels, ", ", size, ", ", size,
        "]: its preprocessor_config.json is another model's")));
  }
  // What is left over beyond the last whole patch is not seen, as by a convolution of that stride.
  const at::Tensor patches = pixels.to(device(), dtype())
                                 .narrow(2, 0, side * p)
                                 .narrow(3, 0, side * p)
                                 .reshape({1, channels, side, p, side, p})
                                 .permute({0, 2, 4, 1, 3, 5})
                                 .reshape({1, side * side, channels * p * p});
  at::Tensor hidden = Linear(patches, patch_weight_.get()->flatten(1),
                             patch_bias_ ? *patch_bias_.get() : at::Tensor());
  if (class_embedding_) hidden = at::cat({class_embedding_.get()->view({1, 1, d}), hidden}, 1);
  hidden.add_(position_embedding_.get());
  return config_.is_siglip ? hidden : ClipNorm(hidden, pre_norm_, config_.layers.layer_norm_eps);
}

std::vector<at::Tensor> VisionEncoder::Forward(const std::vector<at::Tensor>& pixels,
                                               const RunContext& context) const {
  Streams hidden;
  for (const at::Tensor& image : pixels) hidden.push_back(Embed(image));
  layers_->Run(context, hidden);
  for (at::Tensor& states : hidden) {
    if (config_.is_siglip) {
      states = ClipNorm(states, post_norm_, config_.layers.layer_norm_eps);
      continue;
    }
    if (!config_.keeps_class_token) states = states.narrow(1, 1, states.size(1) - 1).contiguous();
    states = projector_->Forward(states);
  }
  return hidden;
}

}  // namespace kino::engine
