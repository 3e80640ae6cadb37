// A regular expression of a tokenizer file, with the meaning that Hugging Face tokenizers 0.23
// (Oniguruma) gives it: \p{L}, \s and the like by the reference's version of Unicode, whatever that
// of the installed PCRE2 is. Immutable after Create; thread-safe.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

struct pcre2_real_code_8;

namespace kino::engine {

class SplitPattern {
 public:
  // INVALID_ARGUMENT: malformed, not of CheckSplitSyntax's kind, longer than 4096 bytes, or it may
  // match nothing at all.
  static absl::StatusOr<SplitPattern> Create(const std::string& pattern);

  // A stretch of the text that matched, or one between those.
  struct Piece {
    std::string_view text;
    bool is_match = false;
  };
  // All of `text` in pieces, in order, none of them empty. REQUIRES: text is well-formed UTF-8.
  // INVALID_ARGUMENT: the search takes too many steps.
  absl::StatusOr<std::vector<Piece>> Split(std::string_view text) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  explicit SplitPattern(pcre2_real_code_8* code) : code_(code) {}

  std::unique_ptr<pcre2_real_code_8, Free> code_;
};

}  // namespace kino::engine
