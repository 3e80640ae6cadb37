// Which regular expressions of tokenizer files mean the same to PCRE2 as to Oniguruma, which
// Hugging Face tokenizers runs them on. Pure function, thread-safe.
//
// Source: Oniguruma 6.9 doc/RE (Ruby syntax), pcre2pattern(3).
#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace kino::engine {

// OK: `pattern` holds nothing but alternatives, groups (?:) (?=) (?!) (?<=) (?<!) (?>) ( ), (?i:)
// of letters and quotes, classes, the escapes \p{general category} \P{} \s \S \d \D \r \n \t and of
// punctuation, the quantifiers ? * + {n} {n,} {n,m}, lazy or possessive. INVALID_ARGUMENT names
// what else there is, and its byte.
absl::Status CheckSplitSyntax(std::string_view pattern);

}  // namespace kino::engine
