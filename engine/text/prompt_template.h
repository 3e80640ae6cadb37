// A prompt inside the text that a language model was given around it, and which of the encoder's
// states are the prompt's: as diffusers' HunyuanVideo pipelines have it (diffusers 0.42.1
// pipelines/hunyuan_video, _get_llama_prompt_embeds, _expand_input_ids_with_image_tokens). Pure
// functions; no torch.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/bpe_tokenizer.h"

namespace kino::engine {

struct PromptTemplate {
  std::string_view begin, end;  // the text before and behind the prompt
  // Tokens in front of the prompt, which are cut off.
  int crop_start = 0;
  // "<image>" stands at token 5, and the assistant's header at the end, which is cut off as well.
  bool has_image = false;
};

// DEFAULT_PROMPT_TEMPLATE of the pipelines of text to video, and of image to video.
extern const PromptTemplate kTextToVideoTemplate, kImageToVideoTemplate;

// Positions [begin, end).
struct TokenRange {
  int64_t begin = 0, end = 0;
  bool operator==(const TokenRange&) const = default;
};

struct TemplatedPrompt {
  std::vector<int64_t> padded;  // as `encoded`, and the padding behind it
  std::vector<int64_t>
      encoded;       // what the model sees: no padding, each token of the image by itself
  TokenRange image;  // the image's among `encoded`; empty: there is none
  std::vector<TokenRange> text;  // the prompt's among `encoded`
};

// How many tokens LLaVA makes of an image.
inline constexpr int64_t kImageTokens = 576;

// `prompt` in a template, cut to max_length tokens behind the template's beginning. Without a
// tokenizer: as long as may be; `prompt` is not looked at then. INVALID_ARGUMENT: the prompt is not
// UTF-8 or holds the text of the image's place, or the tokenizer lacks a token of the template.
absl::StatusOr<TemplatedPrompt> TokenizeInTemplate(const BpeTokenizer* tokenizer,
                                                   const PromptTemplate& around,
                                                   const std::string& prompt, int max_length);

}  // namespace kino::engine
