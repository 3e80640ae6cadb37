// The unigram language model of sentencepiece vocabularies: the most probable split of a word into
// pieces (Viterbi). Immutable after Create; thread-safe. Owns its vocabulary.
//
// Source: Kudo 2018 (arXiv 1804.10959); scores in double, ties, the unknown character's score
// (lowest score - 10) and the fusing of neighbouring unknowns as in Hugging Face tokenizers 0.23,
// models/unigram (encode_optimized).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/byte_trie.h"

namespace kino::engine {

struct UnigramPiece {
  std::string text;  // UTF-8
  double score = 0;  // log probability
};

class Unigram {
 public:
  // The index of a piece is its id; of pieces with the same text the last one counts.
  // INVALID_ARGUMENT: no piece has the id unk_id, a score is not finite, a text is not UTF-8.
  static absl::StatusOr<Unigram> Create(const std::vector<UnigramPiece>& pieces, int32_t unk_id);

  // Appends the ids of `word`'s pieces. REQUIRES: word is well-formed UTF-8.
  void Encode(std::string_view word, std::vector<int64_t>* ids) const;

  std::optional<int32_t> Find(std::string_view piece) const;
  int32_t size() const { return static_cast<int32_t>(scores_.size()); }
  int32_t unk_id() const { return unk_id_; }

 private:
  Unigram() = default;

  ByteTrie trie_;               // piece -> id
  std::vector<double> scores_;  // by id
  double unk_score_ = 0;
  int32_t unk_id_ = 0;
};

}  // namespace kino::engine
