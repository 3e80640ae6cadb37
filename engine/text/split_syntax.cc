#include "engine/text/split_syntax.h"

#include <algorithm>
#include <array>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/core/status.h"
#include "engine/text/unicode.h"

namespace kino::engine {
namespace {

constexpr std::array<std::string_view, 37> kCategoryNames = {
    "C",  "Cc", "Cf", "Cn", "Co", "L",  "Ll", "Lm", "Lo", "Lt", "Lu", "M",  "Mc",
    "Me", "Mn", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Pe", "Pf", "Pi", "Po",
    "Ps", "S",  "Sc", "Sk", "Sm", "So", "Z",  "Zl", "Zp", "Zs", "Cs"};

// Pairs that one letter folds to (ß to ss): Oniguruma looks for that one as well, PCRE2 does not.
constexpr std::array<std::string_view, 5> kFoldedPairs = {"ff", "fi", "fl", "ss", "st"};

class SyntaxCheck {
 public:
  explicit SyntaxCheck(std::string_view pattern) : pattern_(pattern) {}

  absl::Status Run() {
    while (at_ < pattern_.size()) KINO_RETURN_IF_ERROR(Next());
    return absl::OkStatus();
  }

 private:
  std::string_view Rest() const { return pattern_.substr(at_); }

  // Takes `length` bytes.
  absl::Status Take(size_t length) {
    at_ += length;
    return absl::OkStatus();
  }

  absl::Status Unsupported(size_t length) const {
    const std::string_view what = Rest().substr(0, length);
    return absl::InvalidArgumentError(absl::StrCat("regular expression with '", std::string(what),
                                                   "' at its byte ", at_,
                                                   ", which is not supported"));
  }

  absl::Status Next() {
    const char c = pattern_[at_];
    switch (c) {
      case '\\':
        return Escape();
      case '[':
        return Class();
      case '(':
        return Group();
      case '{':
        return Interval();
      case '^':
      case '$':
      case '.':
      case ']':
      case '}':
        return Unsupported(1);
      default:
        return Literal();
    }
  }

  absl::Status Literal() {
    const char c = pattern_[at_];
    return absl::ascii_isprint(static_cast<unsigned char>(c)) ? Take(1)
                                                              : Unsupported(Utf8Length(c));
  }

  absl::Status Escape() {
    const std::string_view rest = Rest();
    if (rest.size() < 2) return Unsupported(1);
    const char c = rest[1];
    if (c == 'p' || c == 'P') {
      const size_t end = rest.find('}');
      if (end == std::string_view::npos || rest[2] != '{') return Unsupported(2);
      const std::string_view name = rest.substr(3, end - 3);
      const bool is_known =
          std::find(kCategoryNames.begin(), kCategoryNames.end(), name) != kCategoryNames.end();
      return is_known ? Take(end + 1) : Unsupported(std::min<size_t>(end + 1, 40));
    }
    const bool is_known = std::string_view("sSdDrnt").find(c) != std::string_view::npos ||
                          absl::ascii_ispunct(static_cast<unsigned char>(c)) || c == ' ';
    return is_known ? Take(2) : Unsupported(2);
  }

  // Neither a class inside of it, nor an intersection, nor an empty one.
  absl::Status Class() {
    at_ += Rest().starts_with("[^") ? 2 : 1;
    if (Rest().starts_with(']')) return Unsupported(1);
    while (at_ < pattern_.size()) {
      const std::string_view rest = Rest();
      if (rest[0] == ']') return Take(1);
      if (rest[0] == '[') return Unsupported(1);
      if (rest.starts_with("&&")) return Unsupported(2);
      KINO_RETURN_IF_ERROR(rest[0] == '\\' ? Escape() : Literal());
    }
    return absl::InvalidArgumentError("regular expression with a class that has no end");
  }

  absl::Status Group() {
    const std::string_view rest = Rest();
    if (!rest.starts_with("(?")) return rest.starts_with("(*") ? Unsupported(2) : Take(1);
    if (rest.starts_with("(?i:")) return CaselessGroup();
    for (const std::string_view opening : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"}) {
      if (rest.starts_with(opening)) return Take(opening.size());
    }
    return Unsupported(3);
  }

  // Letters of ASCII, quotes and bars alone.
  absl::Status CaselessGroup() {
    at_ += 4;
    const size_t end = std::min(Rest().find(')'), Rest().size());
    const std::string lower = absl::AsciiStrToLower(std::string(Rest().substr(0, end)));
    for (const std::string_view pair : kFoldedPairs) {
      const size_t found = lower.find(pair);
      if (found == std::string::npos) continue;
      at_ += found;
      return Unsupported(2);
    }
    for (size_t i = 0; i < end; ++i) {
      const bool is_plain = absl::ascii_isalpha(static_cast<unsigned char>(Rest()[0])) ||
                            Rest()[0] == '\'' || Rest()[0] == '|';
      if (!is_plain) return Unsupported(1);
      ++at_;
    }
    return absl::OkStatus();
  }

  // {n}, {n,} or {n,m}. Oniguruma takes a + behind it for one more quantifier, PCRE2 for a
  // possessive one.
  absl::Status Interval() {
    const std::string_view rest = Rest();
    size_t i = 1;
    const auto digits = [&] {
      const size_t begin = i;
      while (i < rest.size() && absl::ascii_isdigit(static_cast<unsigned char>(rest[i]))) ++i;
      return i - begin;
    };
    const size_t low = digits();
    if (low == 0 || low > 4) return Unsupported(1);
    if (i < rest.size() && rest[i] == ',') {
      ++i;
      if (digits() > 4) return Unsupported(1);
    }
    if (i >= rest.size() || rest[i] != '}') return Unsupported(1);
    if (i + 1 < rest.size() && (rest[i + 1] == '+' || rest[i + 1] == '?')) {
      return Unsupported(i + 2);
    }
    return Take(i + 1);
  }

  const std::string_view pattern_;
  size_t at_ = 0;
};

}  // namespace

absl::Status CheckSplitSyntax(std::string_view pattern) { return SyntaxCheck(pattern).Run(); }

}  // namespace kino::engine
