// Regular expressions with the meaning that Python's `re` gives them on text (str): \s, \w, \d and
// \b go by Unicode as Python's do, $ also matches before a newline that ends the text. Immutable
// after construction; thread-safe.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"

struct pcre2_real_code_8;

namespace kino::engine {

class Regex {
 public:
  // Where the whole match and its groups are; nothing for a group that took no part.
  using Groups = std::vector<std::optional<std::string_view>>;

  // REQUIRES: `pattern` is valid.
  explicit Regex(std::string_view pattern, bool ignores_case = false);
  ~Regex();
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  // The first match at or behind `from`. REQUIRES: text is UTF-8. These throw StatusError
  // INVALID_ARGUMENT when the search takes too many steps.
  std::optional<Groups> Search(std::string_view text, size_t from = 0) const;
  // The match that starts at `from`.
  std::optional<Groups> Match(std::string_view text, size_t from = 0) const;
  // `text` with every match replaced.
  std::string Replace(std::string_view text,
                      absl::FunctionRef<std::string(const Groups&)> with) const;
  std::string Replace(std::string_view text, std::string_view with) const;
  size_t Count(std::string_view text) const;

 private:
  std::optional<Groups> Run(std::string_view text, size_t from, unsigned options) const;
  pcre2_real_code_8* code_;
};

}  // namespace kino::engine
