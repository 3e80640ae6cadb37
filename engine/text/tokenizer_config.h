// What the JSON files beside a T5 vocabulary say about special tokens: tokenizer_config.json,
// special_tokens_map.json and added_tokens.json, none of which need exist. Values only;
// thread-safe.
//
// Source: transformers 5.23: tokenization_utils_base.py (_from_pretrained, __init__),
// tokenization_utils_tokenizers.py (TokenizersBackend.__init__) and models/t5/tokenization_t5.py
// decide together which tokens are added, in which order, and whose flags count; older and newer
// layouts of the files differ in where they put the same thing.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/added_tokens.h"

namespace kino::engine {

// What the vocabulary file itself says about added tokens.
struct VocabularyTokens {
  // From tokenizer.json, by id.
  std::map<int64_t, AddedToken> added_tokens;
  // From spiece.model: control and user-defined pieces. Absent when the vocabulary comes from
  // tokenizer.json.
  std::optional<std::vector<AddedToken>> additional_special_tokens;
};

struct T5TokenizerConfig {
  int extra_ids = 100;
  std::string eos_token = "</s>";
  std::string unk_token = "<unk>";
  std::string pad_token = "<pad>";
  bool split_special_tokens = false;
  // In the order in which they get their ids; where a content comes twice the later flags count.
  std::vector<AddedToken> added_tokens;
};

// INVALID_ARGUMENT names the file and key: malformed, or an option that is not supported (padding
// or truncation on the left, a versioned tokenizer file).
absl::StatusOr<T5TokenizerConfig> ReadT5TokenizerConfig(const std::string& folder,
                                                        const VocabularyTokens& vocabulary);

// Only `extra_ids` of the same file: a vocabulary of spiece.model must be extended by as many
// sentinels.
absl::StatusOr<int> ReadExtraIds(const std::string& folder);

// "<extra_id_3>"
std::string SentinelToken(int index);

}  // namespace kino::engine
