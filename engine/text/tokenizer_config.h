// What the JSON files beside a vocabulary say about special tokens: tokenizer_config.json,
// special_tokens_map.json and added_tokens.json, none of which need exist. Values only;
// thread-safe.
//
// Source: transformers 5.23: tokenization_utils_base.py (_from_pretrained, __init__),
// tokenization_utils_tokenizers.py (TokenizersBackend.__init__) and the class, such as
// models/t5/tokenization_t5.py, decide together which tokens are added, in which order, and whose
// flags count; older and newer layouts of the files differ in where they put the same thing.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/added_tokens.h"

namespace kino::engine {

// What the vocabulary file itself says about added tokens.
struct VocabularyTokens {
  // From tokenizer.json, in its order, with the ids it gives.
  std::vector<std::pair<int64_t, AddedToken>> added_tokens = {};
  // From spiece.model: control and user-defined pieces. Absent when the vocabulary comes from
  // tokenizer.json.
  std::optional<std::vector<AddedToken>> additional_special_tokens = {};
};

// What a tokenizer class of transformers adds by itself.
struct TokenizerClass {
  // By key, "eos_token", where the files do not name it.
  std::map<std::string, std::string> named_tokens = {};
  // T5's <extra_id_N>, as many as "extra_ids" says.
  bool has_sentinels = false;
  // The class takes tokenizer.json as it is (TokenizersBackend), so that its added tokens come
  // first, with its own flags unless "added_tokens_decoder" has others. Else it takes the
  // vocabulary alone, and the file's tokens count only where no "added_tokens_decoder" is.
  bool keeps_file_tokens = false;
};

struct TokenizerConfig {
  int extra_ids = 100;
  // By key; those that neither files nor class name are left out.
  std::map<std::string, std::string> named_tokens;
  bool split_special_tokens = false;
  // In the order in which they get their ids; where a content comes twice the later flags count.
  std::vector<AddedToken> added_tokens;
};

// INVALID_ARGUMENT names the file and key: malformed, or an option that is not supported (padding
// or truncation on the left, a versioned tokenizer file).
absl::StatusOr<TokenizerConfig> ReadTokenizerConfig(const std::string& folder,
                                                    const VocabularyTokens& vocabulary,
                                                    const TokenizerClass& tokenizer_class);

// Only `extra_ids` of the same file: a vocabulary of spiece.model must be extended by as many
// sentinels.
absl::StatusOr<int> ReadExtraIds(const std::string& folder);

// "<extra_id_3>"
std::string SentinelToken(int index);

}  // namespace kino::engine
