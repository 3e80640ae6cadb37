// T5's tokenizer: text to ids, the same as transformers 5.23's T5Tokenizer gives for the same
// folder. Immutable after Load; thread-safe.
//
// Steps: added tokens are cut out; the rest is normalised by the charsmap, split at white space,
// each word gets "▁" in front, words split again before each "▁", and the unigram model splits each
// into pieces; </s> ends the list. Source: transformers 5.23 models/t5/tokenization_t5.py over
// tokenizers 0.23; sentencepiece's own flags for dummy prefix, white space and byte fallback have
// no effect there, and none here.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/added_vocabulary.h"
#include "engine/text/charsmap.h"
#include "engine/text/tokens.h"
#include "engine/text/unigram.h"

namespace kino::engine {

class T5Tokenizer {
 public:
  // From a folder that holds tokenizer.json (taken when both are there) or spiece.model, and
  // perhaps tokenizer_config.json, special_tokens_map.json and added_tokens.json. NOT_FOUND:
  // neither is there. INVALID_ARGUMENT names the file and what is wrong with it.
  static absl::StatusOr<std::unique_ptr<T5Tokenizer>> Load(const std::string& folder);

  // Exactly max_length ids; a longer prompt loses its end but keeps </s>.
  // INVALID_ARGUMENT: the prompt is not UTF-8, max_length is not in [1, 2^20].
  absl::StatusOr<Tokens> Encode(std::string_view prompt, int max_length) const;

  // All ids, </s> included, neither cut nor padded. INVALID_ARGUMENT: the prompt is not UTF-8.
  absl::StatusOr<std::vector<int64_t>> EncodeWhole(std::string_view prompt) const;

  int64_t pad_id() const { return pad_id_; }
  int64_t eos_id() const { return eos_id_; }
  int64_t unk_id() const { return unigram_.unk_id(); }
  // Added tokens included: every id is below this.
  int64_t vocab_size() const { return added_.id_bound(); }

 private:
  struct Vocabulary;

  T5Tokenizer(Unigram unigram, std::optional<Charsmap> charsmap, AddedVocabulary added);

  // Appends the ids of text that holds no added token and is normalised.
  void EncodeText(std::string_view text, std::vector<int64_t>* ids) const;

  const Unigram unigram_;
  const std::optional<Charsmap> charsmap_;
  const AddedVocabulary added_;
  int64_t pad_id_ = 0;
  int64_t eos_id_ = 0;
};

}  // namespace kino::engine
