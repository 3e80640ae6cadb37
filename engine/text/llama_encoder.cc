#include "engine/text/llama_encoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/core/status.h"
#include "engine/core/status_bridge.h"
#include "engine/ops/attention.h"
#include "engine/text/text_layers.h"

namespace kino::engine {
namespace {

// What comes before a LlamaModel's names: in a file of its own, in a LlamaForCausalLM's, in a
// LLaVA's of transformers 4, and of 5, and in a LlavaModel's.
constexpr const char* kPrefixes[] = {"", "model.", "language_model.model.", "model.language_model.",
                                     "language_model."};

std::string PrefixIn(const Checkpoint& checkpoint) {
  for (const char* prefix : kPrefixes) {
    if (checkpoint.Find(absl::StrCat(prefix, "embed_tokens.weight")) != nullptr) return prefix;
  }
  return "";
}

// What the files hold beside the layers that are run.
void AllowTheRest(WeightSet& weights, const std::string& prefix, const LlamaEncoderConfig& config) {
  for (const char* head : {"lm_head.", "language_model.lm_head."}) weights.AllowUnexpected(head);
  weights.AllowUnexpected(prefix + "norm.");
  weights.AllowUnexpected(prefix + "rotary_emb.");
  for (int i = 0; i < config.num_hidden_layers; ++i) {
    const std::string layer = absl::StrCat(prefix, "layers.", i, ".");
    // Files of transformers before 4.32 have the rotary frequencies of each layer.
    weights.AllowUnexpected(i < config.layers_run() ? layer + "self_attn.rotary_emb." : layer);
  }
  if (config.image_token_index < 0) return;
  for (const char* model : {"", "model."}) {
    for (const char* part : {"vision_tower.", "multi_modal_projector."})
      weights.AllowUnexpected(absl::StrCat(model, part));
  }
}

// [head / 2] float32 on the host.
at::Tensor RotaryFrequencies(const LlamaRope& rope, int64_t head) {
  at::Tensor frequencies =
      1.0 / at::pow(rope.theta, at::arange(0, head, 2, at::TensorOptions().dtype(at::kFloat)) /
                                    static_cast<double>(head));
  if (rope.scaling == LlamaRope::Scaling::kDefault) return frequencies;
  if (rope.scaling == LlamaRope::Scaling::kLinear) return frequencies.div_(rope.factor);
  const double length = rope.original_max_position_embeddings;
  const double longest = length / rope.low_freq_factor, shortest = length / rope.high_freq_factor;
  const at::Tensor waves = 2 * M_PI / frequencies;
  const at::Tensor scaled = at::where(waves > longest, frequencies / rope.factor, frequencies);
  const at::Tensor smooth =
      (length / waves - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  const at::Tensor between = (1 - smooth) * scaled / rope.factor + smooth * scaled;
  return at::where((waves < shortest).logical_or_(waves > longest), scaled, between);
}

}  // namespace

LlamaEncoder::LlamaEncoder(const LlamaEncoderConfig& config, const ComponentFiles& files,
                           c10::ScalarType dtype, c10::Device device)
    : Component(files, dtype, device), config_(config) {
  const std::string prefix = PrefixIn(*files.checkpoint);
  AllowTheRest(weights(), prefix, config_);
  const WeightScope all(weights(), weights().AddGroup("embeddings"));
  const WeightScope root =
      prefix.empty() ? all : all.Sub(std::string_view(prefix).substr(0, prefix.size() - 1));
  embedding_ = root.Get("embed_tokens.weight", {config_.vocab_size, config_.hidden_size},
                        LayerKind::kEmbedding);
  std::vector<WeightGroup*> groups = weights().AddGroups("layers", config_.layers_run());
  for (int i = 0; i < config_.layers_run(); ++i)
    blocks_.push_back(MakeBlock(root.Sub("layers", i).In(*groups[static_cast<size_t>(i)])));
  stack_ = std::make_unique<BlockStack>(residency(), std::move(groups));
}

LlamaEncoder::Block LlamaEncoder::MakeBlock(const WeightScope& scope) const {
  const int64_t d = config_.hidden_size, inner = config_.intermediate_size,
                queries = int64_t{config_.num_attention_heads} * config_.head_dim,
                keys = int64_t{config_.num_key_value_heads} * config_.head_dim;
  const WeightScope attention = scope.Sub("self_attn"), mlp = scope.Sub("mlp");
  return {.input_norm = scope.Get("input_layernorm.weight", {d}),
          .post_attention_norm = scope.Get("post_attention_layernorm.weight", {d}),
          .q = attention.Linear("q_proj", d, queries, config_.attention_bias),
          .k = attention.Linear("k_proj", d, keys, config_.attention_bias),
          .v = attention.Linear("v_proj", d, keys, config_.attention_bias),
          .o = attention.Linear("o_proj", queries, d, config_.attention_bias),
          .gate = mlp.Linear("gate_proj", d, inner, config_.mlp_bias),
          .up = mlp.Linear("up_proj", d, inner, config_.mlp_bias),
          .down = mlp.Linear("down_proj", inner, d, config_.mlp_bias)};
}

at::Tensor LlamaEncoder::Embed(const LlamaPrompt& prompt) const {
  at::Tensor hidden = EmbedTokens(*this, embedding_, config_.vocab_size, prompt.ids);
  if (!prompt.images.defined()) return hidden;
  const auto refuse = [&](const std::string& what) {
    throw StatusError(absl::InvalidArgumentError(
        absl::StrCat("text encoder '", weights().checkpoint().folder(), "': ", what)));
  };
  if (config_.image_token_index < 0)
    refuse("a prompt with an image, but it is a LLaMA alone; expected a LLaVA");
  const at::Tensor positions = prompt.ids[0].eq(config_.image_token_index).nonzero().squeeze(1);
  if (prompt.images.dim() != 3 || prompt.images.size(0) != 1 ||
      prompt.images.size(1) != positions.size(0) || prompt.images.size(2) != config_.hidden_size) {
    refuse(absl::StrCat("image features of shape [", absl::StrJoin(prompt.images.sizes(), ", "),
                        "], expected [1, ", positions.size(0), ", ", config_.hidden_size,
                        "], as many as the prompt has tokens ", config_.image_token_index));
  }
  return hidden.index_copy_(1, positions.to(device()), prompt.images.to(hidden.options()));
}

LlamaEncoder::Rotary LlamaEncoder::MakeRotary(int64_t length) const {
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device());
  const at::Tensor angles = at::arange(length, options).view({length, 1, 1}) *
                            RotaryFrequencies(config_.rope, config_.head_dim).to(device());
  return {.cos = angles.cos().to(dtype()), .sin = angles.sin().to(dtype())};
}

at::Tensor LlamaEncoder::Rotated(const at::Tensor& x, const Rotary& rotary) const {
  // Of a head's numbers, the i-th of the first half and of the second are a pair.
  const int64_t half = config_.head_dim / 2, axis = config_.permuted_rotary ? 4 : 3;
  const at::Tensor pairs =
      config_.permuted_rotary ? x.unflatten(2, {-1, half, 2}) : x.unflatten(2, {-1, 2, half});
  const at::Tensor first = pairs.select(axis, 0), second = pairs.select(axis, 1);
  const at::Tensor cos = rotary.cos.narrow(0, 0, x.size(1)),
                   sin = rotary.sin.narrow(0, 0, x.size(1));
  return at::stack({first * cos - second * sin, second * cos + first * sin}, axis).flatten(2);
}

at::Tensor LlamaEncoder::RunBlock(const Block& block, at::Tensor hidden,
                                  const Rotary& rotary) const {
  const AttentionContext causal{.causal = true};
  at::Tensor normed = RmsNorm(hidden, block.input_norm, config_.rms_norm_eps);
  const at::Tensor q = Rotated(block.q.Apply(normed), rotary);
  const at::Tensor k = Rotated(block.k.Apply(normed), rotary);
  hidden = hidden + block.o.Apply(Attention(q, k, block.v.Apply(normed),
                                            config_.num_attention_heads, causal));
  normed = RmsNorm(hidden, block.post_attention_norm, config_.rms_norm_eps);
  at::Tensor inner = block.gate.Apply(normed);
  at::silu_(inner).mul_(block.up.Apply(normed));
  return hidden + block.down.Apply(inner);
}

std::vector<at::Tensor> LlamaEncoder::Forward(const std::vector<LlamaPrompt>& prompts,
                                              const RunContext& context) const {
  Streams hidden;
  int64_t longest = 0;
  for (const LlamaPrompt& prompt : prompts) {
    hidden.push_back(Embed(prompt));
    longest = std::max(longest, prompt.ids.size(1));
  }
  if (prompts.empty()) return hidden;
  const Rotary rotary = MakeRotary(longest);
  stack_->Run(context, hidden, [&](int i, Streams& between) {
    for (at::Tensor& states : between)
      states = RunBlock(blocks_[static_cast<size_t>(i)], std::move(states), rotary);
  });
  return hidden;
}

}  // namespace kino::engine
