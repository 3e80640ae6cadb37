// Reads a tokenizer.json's added tokens, and the parts of one (Hugging Face tokenizers' own format)
// that T5Tokenizer of transformers 5.23 takes over: the unigram vocabulary, the normaliser's
// charsmap and the added tokens. That class rebuilds everything else itself
// (tokenization_utils_tokenizers.py, convert_to_native_format), so the file's other normalisers,
// its pre-tokenizer, post-processor, unk_id, "padding" and "truncation" have no effect there, and
// none here.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/added_tokens.h"
#include "engine/text/unigram.h"
#include "nlohmann/json_fwd.hpp"

namespace kino::engine {

// Of a tokenizer.json's "added_tokens" each with its id, in the file's order; none when it is null.
// INVALID_ARGUMENT begins with `where`, the file.
absl::StatusOr<std::vector<std::pair<int64_t, AddedToken>>> ReadAddedTokens(
    const nlohmann::json& added_tokens, const std::string& where);

struct UnigramTokenizerJson {
  std::vector<UnigramPiece> vocab;
  std::optional<std::string> precompiled_charsmap;  // decoded bytes
  std::vector<std::pair<int64_t, AddedToken>> added_tokens;
};

// NOT_FOUND or INVALID_ARGUMENT (malformed, not a unigram model, larger than 64 MB) name the file
// and the key.
absl::StatusOr<UnigramTokenizerJson> ReadUnigramTokenizerJson(const std::string& path);

}  // namespace kino::engine
