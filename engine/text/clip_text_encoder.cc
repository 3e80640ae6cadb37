#include "engine/text/clip_text_encoder.h"

#include <ATen/TensorOperators.h>

#include "absl/strings/str_cat.h"
#include "engine/core/status.h"
#include "engine/core/status_bridge.h"
#include "engine/text/text_layers.h"

namespace kino::engine {
namespace {

// Of the token whose state is pooled; ids on the host. What is nowhere is at 0, as argmax has it.
int64_t EndOfText(const at::Tensor& ids, int eos_token_id) {
  constexpr int kHighestId = 2;
  const at::Tensor row = ids[0];
  return (eos_token_id == kHighestId ? row : row.eq(eos_token_id).to(at::kInt))
      .argmax()
      .item<int64_t>();
}

}  // namespace

ClipTextEncoder::ClipTextEncoder(const ClipTextConfig& config, const ComponentFiles& files,
                                 c10::ScalarType dtype, c10::Device device)
    : Component(files, dtype, device), config_(config) {
  const int64_t d = config_.layers.hidden_size;
  const WeightScope all(weights(), weights().AddGroup("embeddings"));
  const WeightScope root =
      all.Has("embeddings.token_embedding.weight") ? all : all.Sub("text_model");
  const WeightScope embeddings = root.Sub("embeddings");
  token_embedding_ =
      embeddings.Get("token_embedding.weight", {config_.vocab_size, d}, LayerKind::kEmbedding);
  position_embedding_ = embeddings.Get("position_embedding.weight",
                                       {config_.max_position_embeddings, d}, LayerKind::kEmbedding);
  // Beside a CLIPTextModel: old files' table of positions, and what a whole CLIP has more.
  for (const char* rest : {"embeddings.position_ids", "text_model.embeddings.position_ids",
                           "text_projection", "logit_scale", "vision_model.", "visual_projection."})
    weights().AllowUnexpected(rest);
  layers_ = std::make_unique<ClipLayers>(*this, root.Sub("encoder"), config_.layers,
                                         config_.layers.num_hidden_layers, /*causal=*/true);
  final_norm_ =
      root.Sub("final_layer_norm").In(weights().AddGroup("final_layer_norm")).WithBias({d});
}

std::vector<at::Tensor> ClipTextEncoder::Forward(const std::vector<at::Tensor>& ids,
                                                 const RunContext& context) const {
  Streams hidden;
  for (const at::Tensor& prompt : ids) {
    const int64_t length = prompt.size(1);
    if (length > config_.max_position_embeddings) {
      throw StatusError(absl::InvalidArgumentError(
          absl::StrCat("a prompt of ", length, " tokens, but the text encoder '",
                       weights().checkpoint().folder(), "' has ", config_.max_position_embeddings,
                       " positions: cut it off there")));
    }
    at::Tensor states = EmbedTokens(*this, token_embedding_, config_.vocab_size, prompt);
    states.add_(position_embedding_.get()->narrow(0, 0, length));
    hidden.push_back(std::move(states));
  }
  layers_->Run(context, hidden);
  for (size_t i = 0; i < hidden.size(); ++i) {
    hidden[i] = ClipNorm(hidden[i].select(1, EndOfText(ids[i], config_.eos_token_id)), final_norm_,
                         config_.layers.layer_norm_eps);
  }
  return hidden;
}

}  // namespace kino::engine
