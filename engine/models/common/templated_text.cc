#include "engine/models/common/templated_text.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/core/status_bridge.h"
#include "engine/models/common/pipeline.h"
#include "engine/models/common/text_stage.h"

namespace kino::engine {
namespace {

// Of all the tokens that each prompt is encoded with.
std::vector<at::Tensor> AllStates(const TemplatedTextStage& stage,
                                  const std::vector<TemplatedPrompt>& prompts,
                                  const std::vector<PromptImage>& images,
                                  const RunContext& context) {
  std::vector<LlamaPrompt> inputs;
  if (stage.around->has_image) {
    for (size_t i = 0; i < prompts.size(); ++i)
      inputs.push_back({.ids = IdTensor(prompts[i].encoded), .images = images[i].features});
    return stage.encoder->Forward(inputs, context);
  }
  std::vector<std::vector<int64_t>> ids;
  for (const TemplatedPrompt& prompt : prompts) ids.push_back(prompt.encoded);
  return EncodeOnce(*stage.cache, stage.encoder->identity(), ids,
                    [&](const std::vector<at::Tensor>& missing) {
                      for (const at::Tensor& each : missing) inputs.push_back({.ids = each});
                      return stage.encoder->Forward(inputs, context);
                    });
}

void TapText(const Tap& tap, const std::vector<TemplatedPrompt>& prompts,
             const std::vector<at::Tensor>& states) {
  if (!tap) return;
  // As long as the prompts may be.
  int64_t longest = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const size_t padding = prompts[i].padded.size() - prompts[i].encoded.size();
    longest = std::max(longest, states[i].size(1) + static_cast<int64_t>(padding));
  }
  for (size_t i = 0; i < prompts.size(); ++i) {
    TapTensor(tap, absl::StrCat("tokens_", i), IdTensor(prompts[i].padded));
    TapTensor(tap, absl::StrCat("text_states_", i),
              at::constant_pad_nd(states[i], {0, 0, 0, longest - states[i].size(1)}));
  }
}

}  // namespace

std::vector<at::Tensor> EncodeTemplated(const TemplatedTextStage& stage, const PromptRows& prompts,
                                        const std::vector<PromptImage>& images, const Tap& tap,
                                        const RunContext& context) {
  std::vector<TemplatedPrompt> templated;
  for (size_t i = 0; i < prompts.size(); ++i) {
    templated.push_back(ValueOrThrow(
        TokenizeInTemplate(stage.tokenizer, *stage.around, *prompts[i], stage.max_length)));
    // No two prompts alike.
    std::vector<int64_t>& ids = templated[i].encoded;
    if (stage.tokenizer == nullptr) ids.front() = static_cast<int64_t>(i);
    // The encoder's own config says which id the image's tokens have.
    std::fill(ids.begin() + templated[i].image.begin, ids.begin() + templated[i].image.end,
              stage.encoder->config().image_token_index);
  }
  std::vector<at::Tensor> states = AllStates(stage, templated, images, context);
  for (size_t i = 0; i < states.size(); ++i) {
    std::vector<at::Tensor> parts;
    if (stage.around->has_image) {
      const TokenRange& image = templated[i].image;
      parts.push_back(states[i].slice(1, image.begin, image.end, images[i].interleave));
    }
    for (const TokenRange& range : templated[i].text)
      parts.push_back(states[i].slice(1, range.begin, range.end));
    states[i] = at::cat(parts, 1).to(stage.device);
  }
  TapText(tap, templated, states);
  return states;
}

std::vector<at::Tensor> EncodePooled(const PooledTextStage& stage, const PromptRows& prompts,
                                     const Tap& tap, const RunContext& context) {
  std::vector<std::vector<int64_t>> ids;
  for (const std::optional<std::string>& prompt : prompts) {
    ids.push_back(stage.tokenizer == nullptr
                      ? std::vector<int64_t>(static_cast<size_t>(stage.length),
                                             static_cast<int64_t>(ids.size()))
                      : ValueOrThrow(stage.tokenizer->Encode(*prompt, stage.length)).ids);
    TapTensor(tap, absl::StrCat("tokens_", prompts.size() + ids.size()), IdTensor(ids.back()));
  }
  std::vector<at::Tensor> pooled = EncodeOnce(
      *stage.cache, stage.encoder->identity(), ids,
      [&](const std::vector<at::Tensor>& each) { return stage.encoder->Forward(each, context); });
  for (at::Tensor& each : pooled) each = each.to(stage.device);
  if (tap) TapTensor(tap, "pooled_states", at::cat(pooled));
  return pooled;
}

}  // namespace kino::engine
