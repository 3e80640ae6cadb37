#include "engine/text/plain_text.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/text/caption_tables.h"
#include "engine/text/html_entities.h"
#include "engine/text/normal_form.h"
#include "engine/text/regex.h"
#include "engine/text/unicode.h"

namespace kino::engine {
namespace {

std::u32string Decoded(std::string_view text) {
  std::u32string out;
  for (size_t at = 0; at < text.size();) out += DecodeUtf8(text, &at);
  return out;
}

// ftfy.fixes.unescape_html: entities that end in a semicolon.
std::string UnescapeWhole(std::string_view text) {
  static const Regex& entity = *new Regex("&#?[0-9A-Za-z]{1,24};");
  return entity.Replace(text, [](const Regex::Groups& groups) {
    const std::string_view all = *groups[0];
    if (all[1] != '#') {
      const std::optional<std::string_view> named = EntityText(all.substr(1));
      return std::string(named.value_or(all));
    }
    const std::string plain = UnescapeHtml(all);
    return absl::StrContains(plain, ';') ? std::string(all) : plain;
  });
}

// What is put for one character, and nothing for those that stay.
std::optional<std::string_view> Replacement(char32_t c) {
  // ftfy.chardata.LIGATURES.
  static constexpr std::pair<char32_t, const char*> kLigatures[] = {
      {0x132, "IJ"},       {0x133, "ij"},      {0x149, "\u02bcn"}, {0x1C4, "D\u017d"},
      {0x1C5, "D\u017e"},  {0x1C6, "d\u017e"}, {0x1C7, "LJ"},      {0x1C8, "Lj"},
      {0x1C9, "lj"},       {0x1CA, "NJ"},      {0x1CB, "Nj"},      {0x1CC, "nj"},
      {0x1F1, "DZ"},       {0x1F2, "Dz"},      {0x1F3, "dz"},      {0xFB00, "ff"},
      {0xFB01, "fi"},      {0xFB02, "fl"},     {0xFB03, "ffi"},    {0xFB04, "ffl"},
      {0xFB05, "\u017ft"}, {0xFB06, "st"}};
  for (const auto& [ligature, letters] : kLigatures) {
    if (c == ligature) return letters;
  }
  if (c == 0x3000) return " ";
  if (c >= 0xFF01 && c < 0xFF01 + kWidthCount) return kWidths[c - 0xFF01];
  return std::nullopt;
}

bool IsUnwanted(char32_t c) {
  return c < 0x09 || c == 0x0B || (c >= 0x0E && c < 0x20) || c == 0x7F ||
         (c >= 0x206A && c < 0x2070) || c == 0xFEFF || (c >= 0xFFF9 && c < 0xFFFD);
}

// One pass of ftfy.fix_and_explain without fix_encoding, in its order.
std::string RepairOnce(std::string_view text, bool unescapes) {
  const std::string unescaped = unescapes ? UnescapeWhole(text) : std::string(text);
  std::string plain;
  for (const char32_t c : Decoded(unescaped)) {
    // C1 controls are what Windows-1252 has there.
    if (c >= 0x80 && c < 0xA0) {
      AppendUtf8(Windows1252(c), plain);
    } else if (const std::optional<std::string_view> other = Replacement(c)) {
      absl::StrAppend(&plain, std::string(*other));
    } else {
      AppendUtf8(c, plain);
    }
  }
  std::string quoted;
  for (const char32_t c : Decoded(plain)) {
    const bool is_single = c == 0x2BC || (c >= 0x2018 && c < 0x201C);
    const bool is_double = c >= 0x201C && c < 0x2020;
    AppendUtf8(is_single ? U'\'' : is_double ? U'"' : c, quoted);
  }
  const std::string lines = absl::StrReplaceAll(
      quoted, {{"\r\n", "\n"}, {"\r", "\n"}, {"\u2028", "\n"}, {"\u2029", "\n"}});
  static const Regex& escape = *new Regex(R"(\x{1b}\[(?:\d|;)*[a-zA-Z])");
  std::string kept;
  for (const char32_t c : Decoded(escape.Replace(lines, ""))) {
    if (!IsUnwanted(c)) AppendUtf8(c, kept);
  }
  return NormalizeNfc(kept);
}

}  // namespace

std::string LowerCase(std::string_view text) {
  // A sigma that ends a word has a form of its own. Cased letters, and what does not count between
  // them.
#define KINO_CASED R"([\p{Lu}\p{Ll}\p{Lt}\x{aa}\x{ba}\x{2160}-\x{217f}\x{24b6}-\x{24e9}])"
#define KINO_IGNORED \
  R"([\p{Mn}\p{Me}\p{Cf}\p{Lm}\p{Sk}'.:\x{b7}\x{387}\x{55f}\x{5f4}\x{2018}\x{2019}\x{2024}\x{2027}\x{fe13}\x{fe52}\x{fe55}\x{ff07}\x{ff0e}\x{ff1a}])"
  static const Regex& last_sigma =
      *new Regex(KINO_CASED KINO_IGNORED R"(*+\K\x{3a3}(?!)" KINO_IGNORED R"(*+)" KINO_CASED ")");
#undef KINO_CASED
#undef KINO_IGNORED
  std::string out;
  for (const char32_t c : Decoded(last_sigma.Replace(text, "\u03c2"))) {
    AppendLower(c, {kLowerRuns, kLowerRunCount}, out);
  }
  return out;
}

std::string_view Strip(std::string_view text) {
  static const Regex& first = *new Regex(R"(\S)");
  static const Regex& behind = *new Regex(R"(\s+\z)");
  const std::optional<Regex::Groups> begin = first.Search(text);
  if (!begin) return {};
  text.remove_prefix(static_cast<size_t>(begin->front()->data() - text.data()));
  const std::optional<Regex::Groups> end = behind.Search(text);
  if (end) text.remove_suffix(end->front()->size());
  return text;
}

std::string UnquotePlus(std::string_view text) {
  std::string bytes;
  const auto digit = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    const char lower = static_cast<char>(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
  };
  // Letters beyond ASCII end a stretch that is decoded by itself.
  std::string out;
  const auto flush = [&] {
    for (size_t at = 0; at < bytes.size();) {
      const std::string_view rest = std::string_view(bytes).substr(at);
      const size_t good = Utf8ErrorOffset(rest);
      absl::StrAppend(&out, std::string(rest.substr(0, good)));
      at += good;
      if (good == rest.size()) break;
      out += "\ufffd";
      at += MalformedUtf8Length(rest.substr(good));
    }
    bytes.clear();
  };
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (static_cast<unsigned char>(c) >= 0x80) {
      flush();
      out += c;
    } else if (c == '%' && at + 2 < text.size() && digit(text[at + 1]) >= 0 &&
               digit(text[at + 2]) >= 0) {
      bytes += static_cast<char>(digit(text[at + 1]) * 16 + digit(text[at + 2]));
      at += 2;
    } else {
      bytes += c == '+' ? ' ' : c;
    }
  }
  flush();
  return out;
}

std::string NormalizeNfc(std::string_view text) {
  return NormalizeNfc(text, {.combining = {kCombiningBoundaries, kCombiningBoundaryCount}});
}

std::string RepairText(std::string_view text) {
  std::string out;
  bool unescapes = true;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size() - 1) + 1;
    std::string line(text.substr(0, end));
    // Where there are tags, entities are left to whoever reads them: from this line on.
    unescapes = unescapes && !absl::StrContains(line, '<');
    for (;;) {
      std::string repaired = RepairOnce(line, unescapes);
      if (repaired == line) break;
      line = std::move(repaired);
    }
    absl::StrAppend(&out, line);
    text.remove_prefix(end);
  }
  return out;
}

}  // namespace kino::engine
