// The text stage of a run whose transformer reads two encoders (diffusers 0.42.1
// pipelines/hunyuan_video): of a language model, which is given the prompt in a template and
// perhaps an image, the states of the prompt's tokens; and what CLIP makes of all of a prompt. What
// was encoded before comes from the cache, but for what an image has a part in. One thread at a
// time.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "engine/core/run_context.h"
#include "engine/engine.h"
#include "engine/text/bpe_tokenizer.h"
#include "engine/text/clip_text_encoder.h"
#include "engine/text/embedding_cache.h"
#include "engine/text/llama_encoder.h"
#include "engine/text/prompt_template.h"

namespace kino::engine {

using PromptRows = std::vector<std::optional<std::string>>;

// What the language model is shown beside a prompt.
struct PromptImage {
  at::Tensor features;  // as LlamaPrompt takes them
  int interleave = 1;   // one of so many states of its tokens is kept
};

struct TemplatedTextStage {
  const BpeTokenizer* tokenizer;  // nullptr: prompts are taken to be as long as may be
  const LlamaEncoder* encoder;
  EmbeddingCache* cache;
  const PromptTemplate* around;
  int max_length;      // tokens of a prompt
  c10::Device device;  // where the states are wanted
};

// The states of each prompt's own tokens, [1, tokens, D], behind those of its image. images: of
// each prompt, where the template has one. Taps tokens_0, text_states_0, ...: the ids with their
// padding, and the states with zeros for theirs. Throws StatusError: as TokenizeInTemplate and the
// encoder.
std::vector<at::Tensor> EncodeTemplated(const TemplatedTextStage& stage, const PromptRows& prompts,
                                        const std::vector<PromptImage>& images, const Tap& tap,
                                        const RunContext& context);

struct PooledTextStage {
  const BpeTokenizer* tokenizer;  // nullptr: as above
  const ClipTextEncoder* encoder;
  EmbeddingCache* cache;
  int length;          // tokens of a prompt, with its padding
  c10::Device device;  // where the states are wanted
};

// What CLIP makes of each prompt, [1, D]. Taps the ids of n prompts as tokens_<n + 1> and those
// behind it, and pooled_states. Throws StatusError: a prompt that is no UTF-8; what the encoder
// throws.
std::vector<at::Tensor> EncodePooled(const PooledTextStage& stage, const PromptRows& prompts,
                                     const Tap& tap, const RunContext& context);

}  // namespace kino::engine
