#define PCRE2_CODE_UNIT_WIDTH 8
#include "engine/text/regex.h"

#include <c10/util/Exception.h>
#include <pcre2.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "engine/core/status_bridge.h"

namespace kino::engine {
namespace {

// Of one search; the longest prompt takes less than a tenth.
constexpr uint32_t kMostSteps = 1'000'000'000;

// What str.isspace and str.isalnum say, without the brackets of a class.
constexpr char kSpace[] =
    R"(\x{9}-\x{d}\x{1c}-\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr char kWord[] = R"(\p{L}\p{N}_)";

// Python's classes spelt out: those of PCRE2 differ, and differ by release.
std::string SpeltOut(std::string_view pattern) {
  const std::string word = absl::StrCat("[", kWord, "]");
  std::string out;
  bool is_in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '[' && !is_in_class) is_in_class = true;
    if (c == ']') is_in_class = false;
    if (c != '\\') {
      out += c;
      continue;
    }
    const char next = pattern[++i];
    switch (next) {
      case 's':
        absl::StrAppend(&out, is_in_class ? "" : "[", kSpace, is_in_class ? "" : "]");
        break;
      case 'S':
        TORCH_CHECK(!is_in_class, "\\S inside of a class: ", std::string(pattern));
        absl::StrAppend(&out, "[^", kSpace, "]");
        break;
      case 'w':
        absl::StrAppend(&out, is_in_class ? kWord : word);
        break;
      case 'd':
        out += R"(\p{Nd})";
        break;
      case 'D':
        out += R"(\P{Nd})";
        break;
      case 'b':
        absl::StrAppend(&out, "(?:(?<=", word, ")(?!", word, ")|(?<!", word, ")(?=", word, "))");
        break;
      default:
        out += c;
        out += next;
    }
  }
  return out;
}

}  // namespace

Regex::Regex(std::string_view pattern, bool ignores_case) {
  const std::string spelt_out = SpeltOut(pattern);
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  size_t offset = 0;
  code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(spelt_out.data()), spelt_out.size(),
                        PCRE2_UTF | (ignores_case ? PCRE2_CASELESS : 0u), &error, &offset,
                        context.get());
  TORCH_CHECK(code_ != nullptr, "PCRE2 error ", error, " at ", offset, " of ", spelt_out);
  // Several times as fast; where it cannot be had, matching works all the same.
  pcre2_jit_compile(code_, PCRE2_JIT_COMPLETE);
}

Regex::~Regex() { pcre2_code_free(code_); }

std::optional<Regex::Groups> Regex::Run(std::string_view text, size_t from,
                                        unsigned options) const {
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create_from_pattern(code_, nullptr), pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  pcre2_set_match_limit(context.get(), kMostSteps);
  const auto match = [&](uint32_t more) {
    return pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                       options | more | PCRE2_NO_UTF_CHECK, data.get(), context.get());
  };
  int count = match(0);
  if (count == PCRE2_ERROR_JIT_STACKLIMIT) count = match(PCRE2_NO_JIT);
  if (count == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (count < 0) {
    ThrowIfError(absl::InvalidArgumentError(
        absl::StrCat("the caption is too involved to be cleaned: PCRE2 error ", count)));
  }
  const size_t* const ends = pcre2_get_ovector_pointer(data.get());
  Groups groups(pcre2_get_ovector_count(data.get()));
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    if (ends[2 * i] == PCRE2_UNSET) continue;
    groups[i] = text.substr(ends[2 * i], ends[2 * i + 1] - ends[2 * i]);
  }
  return groups;
}

std::optional<Regex::Groups> Regex::Search(std::string_view text, size_t from) const {
  return Run(text, from, 0);
}

std::optional<Regex::Groups> Regex::Match(std::string_view text, size_t from) const {
  return Run(text, from, PCRE2_ANCHORED);
}

std::string Regex::Replace(std::string_view text,
                           absl::FunctionRef<std::string(const Groups&)> with) const {
  std::string out;
  size_t done = 0;
  while (const std::optional<Groups> groups = Search(text, done)) {
    const std::string_view match = *groups->front();
    // No expression here matches nothing at all, which would go on for ever.
    TORCH_CHECK(!match.empty(), "an expression that matches nothing");
    const size_t begin = static_cast<size_t>(match.data() - text.data());
    absl::StrAppend(&out, std::string(text.substr(done, begin - done)), with(*groups));
    done = begin + match.size();
  }
  return absl::StrCat(out, std::string(text.substr(done)));
}

std::string Regex::Replace(std::string_view text, std::string_view with) const {
  return Replace(text, [&with](const Groups&) { return std::string(with); });
}

size_t Regex::Count(std::string_view text) const {
  size_t count = 0;
  Replace(text, [&count](const Groups&) {
    ++count;
    return std::string();
  });
  return count;
}

}  // namespace kino::engine
