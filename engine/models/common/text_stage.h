// The text stage of a run: prompts to the states that a transformer attends to. One thread at a
// time.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/core/run_context.h"
#include "engine/engine.h"
#include "engine/text/embedding_cache.h"
#include "engine/text/t5_encoder.h"
#include "engine/text/t5_tokenizer.h"

namespace kino::engine {

// What the encoder sees of the padding that fills a prompt up to its full length.
enum class PromptPadding {
  kSeen,    // the pad ids, unmasked (LTX-Video)
  kMasked,  // nothing (Mochi)
  kKept,    // the pad ids, unmasked, and the transformer gets their states too (CogVideoX)
};

// Of each prompt's ids, [1, L] int64 on the host, what an encoder makes of them.
using EncodeIds = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& ids)>;

// What `encode` makes of each list of ids; undefined of an empty one. Those that are in the cache,
// or equal to another, are not encoded again. identity: of the encoder, its plan and dtype; it must
// change with whatever changes what is encoded.
std::vector<at::Tensor> EncodeOnce(EmbeddingCache& cache, const std::string& identity,
                                   const std::vector<std::vector<int64_t>>& ids,
                                   const EncodeIds& encode);

// Token ids as an encoder takes them.
at::Tensor IdTensor(const std::vector<int64_t>& ids);

struct TextStage {
  const T5Tokenizer* tokenizer;  // nullptr: prompts are taken to be as long as may be
  const T5Encoder* encoder;
  EmbeddingCache* cache;
  PromptPadding padding;
  int max_length;      // tokens of a prompt, padding included
  c10::Device device;  // where the states are wanted
};

// The states of each prompt's own tokens, [1, tokens, D], in the encoder's dtype, where padding is
// kept those of all max_length; no tokens for a prompt that is absent. Prompts that are in the
// cache, or equal to another, are not encoded again. Taps tokens_0, text_states_0, ...: the ids
// with their padding, and the states with theirs (zeros where it is masked). Throws StatusError: a
// prompt that is no UTF-8; what the encoder throws.
std::vector<at::Tensor> EncodePrompts(const TextStage& stage,
                                      const std::vector<std::optional<std::string>>& prompts,
                                      const Tap& tap, const RunContext& context);

}  // namespace kino::engine
