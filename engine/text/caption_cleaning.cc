#include "engine/text/caption_cleaning.h"

#include <cstddef>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "engine/core/status_bridge.h"
#include "engine/text/plain_text.h"
#include "engine/text/regex.h"
#include "engine/text/unicode.h"

namespace kino::engine {
namespace {

// An expression, and what is put for each match behind its first group, which stays.
struct Rule {
  Regex pattern;
  const char* with;
};

void Apply(absl::Span<const Rule> rules, std::string& caption) {
  for (const Rule& rule : rules) {
    caption = rule.pattern.Replace(caption, [&rule](const Regex::Groups& groups) {
      const bool keeps = groups.size() > 1 && groups[1];
      return absl::StrCat(keeps ? std::string(*groups[1]) : "", rule.with);
    });
  }
}

// The expressions of _clean_caption, in its order. A group that does not stay captures nothing.
absl::Span<const Rule> LinkRules() {
  static const Rule rules[] = {
      {Regex("<person>"), "person"},
      {Regex(
           R"(\b(?:https?:(?:\/{1,3}|[a-zA-Z0-9%])|[a-zA-Z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b\/?(?!@)))"),
       ""},
      {Regex(
           R"(\b(?:www:(?:\/{1,3}|[a-zA-Z0-9%])|[a-zA-Z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b\/?(?!@)))"),
       ""}};
  return rules;
}

absl::Span<const Rule> PunctuationRules() {
  static const Rule rules[] = {
      {Regex(R"(@[\w\d]+\b)"), ""},
      // CJK strokes; Katakana extensions; from enclosed letters to unified ideographs.
      {Regex(R"([\x{31c0}-\x{31ef}\x{31f0}-\x{31ff}\x{3200}-\x{9fff}]+)"), ""},
      // Dashes.
      {Regex(
           R"([\x{2d}\x{58a}\x{5be}\x{1400}\x{1806}\x{2010}-\x{2015}\x{2e17}\x{2e1a}\x{2e3a}\x{2e3b}\x{2e40}\x{301c}\x{3030}\x{30a0}\x{fe31}\x{fe32}\x{fe58}\x{fe63}\x{ff0d}]+)"),
       "-"},
      {Regex("[`´«»“”¨]"), "\""},
      {Regex("[‘’]"), "'"},
      {Regex("&quot;?"), ""},
      {Regex("&amp"), ""},
      // Addresses, article numbers, line feeds that were written out.
      {Regex(R"(\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3})"), " "},
      {Regex(R"(\d:\d\d\s+$)"), ""},
      {Regex(R"(\\n)"), " "},
      {Regex(R"(#\d{1,3}\b)"), ""},
      {Regex(R"(#\d{5,}\b)"), ""},
      {Regex(R"(\b\d{6,}\b)"), ""},
      {Regex(R"(\S+\.(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4))"), ""},
      {Regex(R"(["']{2,})"), "\""},
      {Regex(R"([\.]{2,})"), " "},
      {Regex(R"([#®•©™&@·º½¾¿¡§~\)\(\]\[\}\{\|\\\/\*]{1,})"), " "},
      {Regex(R"(\s+\.\s+)"), " "}};
  return rules;
}

absl::Span<const Rule> WordRules() {
  static const Rule rules[] = {
      // jc6640, jc6640vc, 6640vc231
      {Regex(R"(\b[a-zA-Z]{1,3}\d{3,15}\b)"), ""},
      {Regex(R"(\b[a-zA-Z]+\d+[a-zA-Z]+\b)"), ""},
      {Regex(R"(\b\d+[a-zA-Z]+\d+\b)"), ""},
      {Regex(R"((?:worldwide\s+)?(?:free\s+)?shipping)"), ""},
      {Regex(R"((?:free\s)?download(?:\sfree)?)"), ""},
      {Regex(R"(\bclick\b\s(?:for|on)\s\w+)"), ""},
      {Regex(R"(\b(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)(?:\simage[s]?)?)"), ""},
      {Regex(R"(\bpage\s+\d+\b)"), ""},
      // j2d1a2a
      {Regex(R"(\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b)"), " "},
      // 1920x1080, with the letters of two alphabets
      {Regex(R"(\b\d+\.?\d*[xх×]\d+\.?\d*\b)"), ""},
      {Regex(R"(\b\s+\:\s+)"), ": "},
      {Regex(R"((\D[,\./])\b)"), " "},
      {Regex(R"(\s+)"), " "},
      // What stands around the whole.
      {Regex(R"(^["']((?s:.)+)["']$)"), ""},
      {Regex(R"(^['\_,\-\:;])"), ""},
      {Regex(R"(['\_,\-\:\-\+]$)"), ""},
      {Regex(R"(^\.\S+$)"), ""}};
  return rules;
}

std::string CleanOnce(std::string_view caption) {
  std::string clean = LowerCase(Strip(UnquotePlus(caption)));
  Apply(LinkRules(), clean);
  clean = HtmlText(clean);
  Apply(PunctuationRules(), clean);
  // this-is-my-cute-cat, this_is_my_cute_cat
  static const Regex& joint = *new Regex(R"([\-\_])");
  constexpr size_t kMostJoints = 3;
  if (joint.Count(clean) > kMostJoints) clean = joint.Replace(clean, " ");
  clean = UnescapeHtml(UnescapeHtml(RepairText(clean)));
  Apply(WordRules(), clean);
  return std::string(Strip(clean));
}

void CheckUtf8(std::string_view caption) {
  const size_t good = Utf8ErrorOffset(caption);
  if (good == caption.size()) return;
  ThrowIfError(absl::InvalidArgumentError(
      absl::StrCat("the prompt is not UTF-8: byte ", good, " begins no character")));
}

}  // namespace

std::string CleanCaption(std::string_view caption) {
  CheckUtf8(caption);
  return CleanOnce(CleanOnce(caption));
}

std::string LowerCaption(std::string_view caption) {
  CheckUtf8(caption);
  return std::string(Strip(LowerCase(caption)));
}

}  // namespace kino::engine
