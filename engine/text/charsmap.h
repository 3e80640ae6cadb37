// The normaliser inside a sentencepiece model: its "precompiled charsmap" (a double-array trie of
// rules and the strings they produce; T5's is nmt_nfkc). Immutable after Parse; thread-safe.
//
// Source: the format is sentencepiece's (normalizer.cc, builder.cc; Darts-clone double array). How
// rules are applied follows Hugging Face tokenizers 0.23 (the spm_precompiled crate), not
// sentencepiece: by grapheme cluster, where a cluster under 6 bytes is replaced WHOLE by the rule
// of its shortest matching prefix ("ª" + U+0301 gives "a"), and otherwise character by character.
// sentencepiece itself replaces the longest prefix and keeps the rest.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace kino::engine {

class Charsmap {
 public:
  // `blob`: u32 trie size in bytes, the trie's u32 units (little endian), then NUL-terminated UTF-8
  // strings. INVALID_ARGUMENT says what is wrong with it. A trie that leads outside itself or
  // outside the strings is not found here; such a rule never applies.
  static absl::StatusOr<Charsmap> Parse(std::string_view blob);

  // REQUIRES: text is well-formed UTF-8. So is the result.
  std::string Normalize(std::string_view text) const;

 private:
  // What the shortest rule that `text` starts with produces; nothing when there is none.
  std::optional<std::string_view> Replacement(std::string_view text) const;

  std::vector<uint32_t> units_;
  std::string strings_;
};

}  // namespace kino::engine
