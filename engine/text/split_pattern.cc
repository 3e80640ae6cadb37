#define PCRE2_CODE_UNIT_WIDTH 8
#include "engine/text/split_pattern.h"

#include <pcre2.h>

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/core/status.h"
#include "engine/text/class_boundaries.h"
#include "engine/text/split_syntax.h"
#include "engine/text/tokenizer_tables.h"
#include "engine/text/unicode.h"

namespace kino::engine {
namespace {

constexpr size_t kMostBytes = 4096;
// Of one search. A megabyte of spaces takes a few million.
constexpr uint32_t kMostSteps = 50'000'000;

// By Category: a character that every PCRE2 knows to be of it, and that has no other case.
constexpr char32_t kStandIns[] = {0xFFFF, 0x80,   0xAD,   0xE000, 0x3D2,  0x138,  0x1FBC, 0x2B0,
                                  0x5D0,  0x300,  0x903,  0x488,  0x660,  0x16EE, 0xB2,   0x203F,
                                  0x2010, 0x2045, 0x2046, 0x2018, 0x2019, 0xA7,   0xB1,   0xA2,
                                  0xA8,   0xA6,   0xA0,   0x2028, 0x2029};

Category CategoryOf(char32_t c) {
  return static_cast<Category>(ClassOf(c, {kCategoryBoundaries, kCategoryBoundaryCount}));
}

// What patterns may name themselves stays: ASCII, the two letters that fold to it, and the control
// character that is white space.
bool StaysItself(char32_t c) { return c < 0x80 || c == 0x85 || c == 0x17F || c == 0x212A; }

// A text in which each character is one that PCRE2 classes as the reference classes the original.
class StandInText {
 public:
  explicit StandInText(std::string_view original) {
    const bool is_ascii =
        std::all_of(original.begin(), original.end(), [](char c) { return (c & 0x80) == 0; });
    if (is_ascii) {
      text_ = original;
      return;
    }
    for (size_t at = 0; at < original.size();) {
      const size_t begin = at;
      const char32_t c = DecodeUtf8(original, &at);
      AppendUtf8(StaysItself(c) ? c : kStandIns[static_cast<size_t>(CategoryOf(c))], made_);
      offsets_.resize(made_.size(), begin);
    }
    offsets_.push_back(original.size());
    text_ = made_;
  }
  StandInText(const StandInText&) = delete;
  StandInText& operator=(const StandInText&) = delete;

  std::string_view text() const { return text_; }
  // Where the character that begins at `offset` of text() is in the original.
  size_t Original(size_t offset) const { return offsets_.empty() ? offset : offsets_[offset]; }

 private:
  std::string_view text_;
  std::string made_;
  std::vector<size_t> offsets_;  // by byte of made_, and one behind it; none: they are the same
};

using MatchData = std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)>;
using MatchContext = std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)>;

}  // namespace

void SplitPattern::Free::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

absl::StatusOr<SplitPattern> SplitPattern::Create(const std::string& pattern) {
  if (pattern.size() > kMostBytes) {
    return absl::InvalidArgumentError(absl::StrCat("regular expression of ", pattern.size(),
                                                   " bytes, expected at most ", kMostBytes));
  }
  KINO_RETURN_IF_ERROR(CheckSplitSyntax(pattern));
  int error = 0;
  size_t offset = 0;
  SplitPattern made(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                  PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr));
  if (made.code_ == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("regular expression is malformed at its byte ",
                                                   offset, " (PCRE2 error ", error, ")"));
  }
  uint32_t may_be_empty = 0;
  pcre2_pattern_info(made.code_.get(), PCRE2_INFO_MATCHEMPTY, &may_be_empty);
  if (may_be_empty != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("regular expression '", pattern, "' may match nothing"));
  }
  // Several times as fast; where it cannot be had, matching works all the same.
  pcre2_jit_compile(made.code_.get(), PCRE2_JIT_COMPLETE);
  return made;
}

absl::StatusOr<std::vector<SplitPattern::Piece>> SplitPattern::Split(std::string_view text) const {
  const StandInText stand_in(text);
  const MatchData data(pcre2_match_data_create_from_pattern(code_.get(), nullptr),
                       pcre2_match_data_free);
  const MatchContext context(pcre2_match_context_create(nullptr), pcre2_match_context_free);
  pcre2_set_match_limit(context.get(), kMostSteps);
  const auto match = [&](size_t from, uint32_t options) {
    return pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(stand_in.text().data()),
                       stand_in.text().size(), from, options | PCRE2_NO_UTF_CHECK, data.get(),
                       context.get());
  };
  std::vector<Piece> pieces;
  const auto add = [&](size_t begin, size_t end, bool is_match) {
    if (begin == end) return;
    const size_t first = stand_in.Original(begin);
    pieces.push_back({text.substr(first, stand_in.Original(end) - first), is_match});
  };
  size_t done = 0;
  while (done < stand_in.text().size()) {
    int count = match(done, 0);
    if (count == PCRE2_ERROR_JIT_STACKLIMIT) count = match(done, PCRE2_NO_JIT);
    if (count == PCRE2_ERROR_NOMATCH) break;
    const size_t* const ends = pcre2_get_ovector_pointer(data.get());
    // Only a look-behind's trick could end where the search began.
    if (count < 0 || ends[1] <= done || ends[0] >= ends[1]) {
      return absl::InvalidArgumentError(
          absl::StrCat("prompt is too involved to be split at its byte ", stand_in.Original(done),
                       " (PCRE2 result ", count, ")"));
    }
    add(done, ends[0], false);
    add(ends[0], ends[1], true);
    done = ends[1];
  }
  add(done, stand_in.text().size(), false);
  return pieces;
}

}  // namespace kino::engine
