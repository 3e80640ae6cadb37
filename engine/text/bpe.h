// Byte pair encoding over the byte-level alphabet: a word's bytes are its first symbols; of all
// pairs of neighbours the one that was learnt first is merged, the leftmost first, until none is
// left. Immutable after Create; thread-safe. Owns its vocabulary.
//
// Source: Sennrich et al. 2016 (arXiv 1508.07909); order of merges, unknown symbols and
// ignore_merges as in Hugging Face tokenizers 0.23, models/bpe (merge_word, Word::merge_all).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

namespace kino::engine {

// By text, and to be searched without a copy of it.
struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using Vocab = std::unordered_map<std::string, int32_t, TextHash, std::equal_to<>>;

// What a file says of the model.
struct BpeModel {
  Vocab vocab;
  std::vector<std::pair<std::string, std::string>> merges;  // first learnt first
  std::string end_of_word_suffix;                           // CLIP's "</w>"
  std::optional<std::string> unk_token;  // for a byte that the vocabulary lacks; none: left out
  bool fuse_unk = false;                 // one for several in a row
  bool ignore_merges = false;            // a word of the vocabulary is taken whole
};

class Bpe {
 public:
  // INVALID_ARGUMENT: no vocabulary, an id is negative, a merge's parts or what they make are not
  // in the vocabulary, unk_token is neither although a byte is missing.
  static absl::StatusOr<Bpe> Create(BpeModel model);

  // Appends the ids of a word, given as plain bytes. O(n log n).
  void Encode(std::string_view word, std::vector<int64_t>* ids) const;

  std::optional<int32_t> Find(std::string_view token) const;
  // How many tokens there are, and what all their ids are below.
  int32_t size() const { return static_cast<int32_t>(model_.vocab.size()); }
  int32_t id_bound() const { return id_bound_; }

 private:
  static constexpr int32_t kNone = -1;

  struct Merge {
    int32_t rank;
    int32_t id;  // of what it makes
  };
  // One of a word's symbols, in a list of neighbours.
  struct Symbol {
    int32_t id;
    int32_t previous, next;  // kNone at the ends
    bool is_merged = false;  // into the one before
  };

  explicit Bpe(BpeModel model) : model_(std::move(model)) {}
  absl::Status ReadMerges();
  absl::Status ReadBytes();
  const Merge* FindMerge(int32_t left, int32_t right) const;
  std::vector<Symbol> Symbols(std::string_view word) const;
  void MergeAll(std::vector<Symbol>& symbols) const;

  BpeModel model_;
  absl::flat_hash_map<uint64_t, Merge> merges_;  // by left id << 32 | right id
  // By byte: its id inside of a word and at its end; kNone: the vocabulary lacks it.
  std::array<int32_t, 256> inner_{};
  std::array<int32_t, 256> last_{};
  int32_t unk_id_ = kNone;
  int32_t id_bound_ = 0;
};

}  // namespace kino::engine
