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

at::Tensor IdTensor(const std::vector<int64_t>& ids) {
  return at::tensor(ids, at::TensorOptions().dtype(at::kLong)).unsqueeze(0);
}

std::vector<at::Tensor> EncodeOnce(EmbeddingCache& cache, const std::string& identity,
                                   const std::vector<std::vector<int64_t>>& ids,
                                   const EncodeIds& encode) {
  std::vector<std::string> keys;
  std::vector<at::Tensor> states, missing;
  const auto first_of = [&keys](size_t i) {
    return static_cast<size_t>(std::find(keys.begin(), keys.end(), keys[i]) - keys.begin());
  };
  for (size_t i = 0; i < ids.size(); ++i) {
    keys.push_back(EmbeddingCache::Key(identity, ids[i]));
    states.push_back(ids[i].empty() ? at::Tensor() : cache.Find(keys[i]));
    if (!ids[i].empty() && !states[i].defined() && first_of(i) == i)
      missing.push_back(IdTensor(ids[i]));
  }
  const std::vector<at::Tensor> encoded = encode(missing);
  size_t next = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i].empty() || states[i].defined()) continue;
    const size_t first = first_of(i);
    states[i] = first < i ? states[first] : encoded[next++];
    cache.Insert(keys[i], states[i]);
  }
  return states;
}

std::vector<at::Tensor> EncodePrompts(const TextStage& stage,
                                      const std::vector<std::optional<std::string>>& prompts,
                                      const Tap& tap, const RunContext& context) {
  std::vector<Prompt> all;
  std::vector<std::vector<int64_t>> ids;
  for (const std::optional<std::string>& text : prompts) {
    all.push_back(Tokenize(stage, text, all.size()));
    ids.push_back(all.back().encoded);
  }
  std::vector<at::Tensor> encoded = EncodeOnce(
      *stage.cache, stage.encoder->identity(), ids,
      [&](const std::vector<at::Tensor>& each) { return stage.encoder->Forward(each, context); });
  std::vector<at::Tensor> states;
  for (size_t i = 0; i < all.size(); ++i) {
    at::Tensor& each = encoded[i];
    if (!each.defined()) {
      each = at::zeros({1, 0, stage.encoder->width()},
                       at::TensorOptions().dtype(stage.encoder->dtype()));
    }
    each = each.to(stage.device);
    if (tap) {
      const at::Tensor padded = at::tensor(all[i].padded, at::TensorOptions().dtype(at::kFloat));
      TapTensor(tap, absl::StrCat("tokens_", i), padded);
      TapTensor(tap, absl::StrCat("text_states_", i),
                at::constant_pad_nd(each, {0, 0, 0, stage.max_length - each.size(1)}));
    }
    states.push_back(each.narrow(1, 0, all[i].tokens));
  }
  return states;
}

}  // namespace kino::engine
