// Tokens that are found in the text before the model sees it: <pad>, </s>, <extra_id_7>.
// AddedTokenMatcher is immutable after Create; thread-safe.
//
// Source: Hugging Face tokenizers 0.23, tokenizer/added_vocabulary.rs (find_matches).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/byte_trie.h"
#include "nlohmann/json_fwd.hpp"

namespace kino::engine {

struct AddedToken {
  std::string content;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // ... after it
  bool special = false;      // "split_special_tokens" leaves it in the text
  std::optional<bool> normalized =
      {};  // looked for after normalisation; absent: when it is not special

  bool is_normalized() const { return normalized.value_or(!special); }
};

// A token as JSON files hold it: a string (special), or an object with "content" and the flags
// above. INVALID_ARGUMENT begins with `where`, the file and key.
absl::StatusOr<AddedToken> ParseAddedToken(const nlohmann::json& json, const std::string& where);

class AddedTokenMatcher {
 public:
  // What to look for: `pattern` is the token's content, normalised where the token is.
  struct Entry {
    std::string pattern;
    int32_t id = 0;
    AddedToken token;
  };
  struct Options {
    bool leaves_special_tokens = false;  // special tokens stay ordinary text
  };

  // INVALID_ARGUMENT: a pattern is empty, or two are the same.
  static absl::StatusOr<AddedTokenMatcher> Create(std::vector<Entry> entries, Options options);

  struct Segment {
    std::string_view text;
    std::optional<int32_t> id;  // of the added token that this is; absent for text between them
  };
  // Cuts `text` at the tokens found: the leftmost first, of those that start together the longest.
  // Segments view `text`; empty ones between tokens are left out. REQUIRES: text is well-formed
  // UTF-8.
  std::vector<Segment> Split(std::string_view text) const;

 private:
  AddedTokenMatcher() = default;

  std::vector<Entry> entries_;
  ByteTrie trie_;             // pattern -> index in entries_
  bool may_start_[256] = {};  // by byte: some pattern starts with it
  Options options_;
};

}  // namespace kino::engine
