// Byte-level BPE tokenizers: LLaMA-3's (GPT-2's kind) and CLIP's. Text to ids, the same as
// transformers 5.23 gives for the same folder when it follows the files: PreTrainedTokenizerFast
// (TokenizersBackend) for the first, CLIPTokenizer for the second. Immutable after loading;
// thread-safe.
//
// Steps: added tokens are cut out; the rest is normalised, split by the pre-tokenizer's patterns,
// each piece is spelt in the byte-level alphabet and merged by rank; the post-processor's ids go in
// front and behind. Source: transformers 5.23 tokenization_utils_tokenizers.py and
// models/clip/tokenization_clip.py over tokenizers 0.23; Radford et al. 2019 (GPT-2), section 2.2.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/tokens.h"

namespace kino::engine {

struct TokenizerConfig;

class BpeTokenizer {
 public:
  // From a folder that holds tokenizer.json and perhaps tokenizer_config.json,
  // special_tokens_map.json and added_tokens.json. Follows tokenizer.json whatever class
  // tokenizer_config.json names (transformers 5.23 rebuilds a byte-level file as sentencepiece
  // where the class is LlamaTokenizerFast, which loses spaces and newlines); its "padding" and
  // "truncation" have no effect. NOT_FOUND: no tokenizer.json. INVALID_ARGUMENT names the file, the
  // key and what is wrong or not supported there; no pad_token is such a fault.
  static absl::StatusOr<std::unique_ptr<BpeTokenizer>> LoadByteLevel(const std::string& folder);

  // CLIP's, from vocab.json and merges.txt, or tokenizer.json (taken when it is there, as
  // transformers does), and the same files beside it. Errors as above.
  static absl::StatusOr<std::unique_ptr<BpeTokenizer>> LoadClip(const std::string& folder);

  ~BpeTokenizer();

  // Exactly max_length ids; a longer prompt loses its end but keeps what the post-processor puts
  // around it (CLIP's <|endoftext|>). INVALID_ARGUMENT: the prompt is not UTF-8 or cannot be split
  // within the pattern's limit of steps, max_length is not between the number of those ids (1 at
  // least) and 2^20.
  absl::StatusOr<Tokens> Encode(std::string_view prompt, int max_length) const;

  // All ids, the post-processor's included, neither cut nor padded. INVALID_ARGUMENT: as above.
  absl::StatusOr<std::vector<int64_t>> EncodeWhole(std::string_view prompt) const;

  // The id of a token by its text in the vocabulary ("<|end_header_id|>", "<image>", "Ġred").
  std::optional<int64_t> FindToken(std::string_view text) const;

  int64_t pad_id() const { return pad_id_; }
  // Added tokens included: every id is below this.
  int64_t vocab_size() const;

 private:
  struct Parts;

  static absl::StatusOr<std::unique_ptr<BpeTokenizer>> Make(const std::string& folder,
                                                            std::unique_ptr<const Parts> parts,
                                                            const TokenizerConfig& config);
  BpeTokenizer(std::unique_ptr<const Parts> parts, int64_t pad_id);

  const std::unique_ptr<const Parts> parts_;
  const int64_t pad_id_;
};

}  // namespace kino::engine
