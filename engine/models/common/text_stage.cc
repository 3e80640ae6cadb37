#include "engine/models/common/text_stage.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/core/status_bridge.h"
#include "engine/models/common/pipeline.h"

namespace kino::engine {
namespace {

struct Prompt {
  std::vector<int64_t> padded;   // max_length ids
  std::vector<int64_t> encoded;  // the ids that go through the encoder; none: an absent prompt
  int64_t tokens = 0;            // its own, without padding
  at::Tensor states;             // of `encoded`
};

Prompt Tokenize(const TextStage& stage, const std::optional<std::string>& text, size_t index) {
  const size_t length = static_cast<size_t>(stage.max_length);
  Prompt prompt;
  if (!text) {
    prompt.padded.assign(length, 0);
    return prompt;
  }
  if (stage.tokenizer == nullptr) {
    // No two prompts alike.
    prompt.padded.assign(length, static_cast<int64_t>(index));
    prompt.tokens = stage.max_length;
  } else {
    Tokens tokens = ValueOrThrow(stage.tokenizer->Encode(*text, stage.max_length));
    prompt.tokens = std::count(tokens.attention_mask.begin(), tokens.attention_mask.end(), 1);
    prompt.padded = std::move(tokens.ids);
  }
  prompt.encoded = prompt.padded;
  if (stage.padding == PromptPadding::kMasked)
    prompt.encoded.resize(static_cast<size_t>(prompt.tokens));
  if (stage.padding == PromptPadding::kKept) prompt.tokens = stage.max_length;
  return prompt;
}

}  // namespace

std::vector<at::Tensor> EncodePrompts(const TextStage& stage,
                                      const std::vector<std::optional<std::string>>& prompts,
                                      const Tap& tap, const RunContext& context) {
  std::vector<Prompt> all;
  std::vector<std::string> keys;
  std::vector<at::Tensor> missing;
  for (const std::optional<std::string>& text : prompts) {
    Prompt& prompt = all.emplace_back(Tokenize(stage, text, all.size()));
    keys.push_back(EmbeddingCache::Key(stage.encoder->identity(), prompt.encoded));
    if (prompt.encoded.empty()) {
      prompt.states = at::zeros({1, 0, stage.encoder->width()},
                                at::TensorOptions().dtype(stage.encoder->dtype()));
      continue;
    }
    prompt.states = stage.cache->Find(keys.back());
    const bool is_repeated = std::find(keys.begin(), keys.end() - 1, keys.back()) < keys.end() - 1;
    if (prompt.states.defined() || is_repeated) continue;
    missing.push_back(
        at::tensor(prompt.encoded, at::TensorOptions().dtype(at::kLong)).unsqueeze(0));
  }
  const std::vector<at::Tensor> encoded = stage.encoder->Forward(missing, context);
  size_t next = 0;
  std::vector<at::Tensor> states;
  for (size_t i = 0; i < all.size(); ++i) {
    Prompt& prompt = all[i];
    if (!prompt.states.defined()) {
      const size_t first =
          static_cast<size_t>(std::find(keys.begin(), keys.end(), keys[i]) - keys.begin());
      prompt.states = first < i ? all[first].states : encoded[next++];
      stage.cache->Insert(keys[i], prompt.states);
    }
    prompt.states = prompt.states.to(stage.device);
    if (tap) {
      const at::Tensor ids = at::tensor(prompt.padded, at::TensorOptions().dtype(at::kFloat));
      TapTensor(tap, absl::StrCat("tokens_", i), ids);
      const int64_t padding = stage.max_length - prompt.states.size(1);
      TapTensor(tap, absl::StrCat("text_states_", i),
                at::constant_pad_nd(prompt.states, {0, 0, 0, padding}));
    }
    states.push_back(prompt.states.narrow(1, 0, prompt.tokens));
  }
  return states;
}

}  // namespace kino::engine
