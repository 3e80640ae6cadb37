// HtmlText and UnescapeHtml of plain_text.h.
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/text/html_entities.h"
#include "engine/text/plain_text.h"
#include "engine/text/regex.h"
#include "engine/text/unicode.h"

namespace kino::engine {
namespace {

constexpr char32_t kReplacement = 0xFFFD;
constexpr uint32_t kNoCharacter = 0x110000;

// kNoCharacter: too large for any.
uint32_t NumberOf(std::string_view digits, int base) {
  uint32_t number = 0;
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), number, base);
  return result.ec == std::errc() ? std::min(number, kNoCharacter) : kNoCharacter;
}

bool IsCharacter(uint32_t number) {
  return number < kNoCharacter && (number < 0xD800 || number >= 0xE000);
}

// What html.unescape leaves out.
bool IsInvalid(uint32_t number) {
  return (number < 0x20 && number != '\t' && number != '\n' && number != '\f') || number == 0x7F ||
         (number >= 0xFDD0 && number < 0xFDF0) || (number & 0xFFFE) == 0xFFFE;
}

std::string UnescapeNumber(std::string_view digits, int base) {
  const uint32_t number = NumberOf(digits, base);
  std::string out;
  if (number == '\r' || (number >= 0x80 && number < 0xA0)) {
    AppendUtf8(Windows1252(number), out);
  } else if (number == 0 || !IsCharacter(number)) {
    AppendUtf8(kReplacement, out);
  } else if (!IsInvalid(number)) {
    AppendUtf8(number, out);
  }
  return out;
}

bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// What of a document's tags matters to its text: beautifulsoup4's tree, flattened.
class TextOfTree {
 public:
  void Data(std::string_view data) {
    has_data_ = true;
    absl::StrAppend(&data_, std::string(data));
  }
  // What came as data and is none of the document's text: comments and the like.
  void Hidden(std::string_view data) {
    EndData(true);
    Data(data);
    EndData(false);
  }
  void CData(std::string_view data) {
    EndData(true);
    Data(data);
    EndData(true, /*is_plain=*/false);
  }
  void Open(const std::string& tag) {
    EndData(true);
    open_.push_back(tag);
  }
  // All that was opened behind the last such tag, and the tag.
  void Close(std::string_view tag) {
    EndData(true);
    const auto last = std::find(open_.rbegin(), open_.rend(), tag);
    if (last != open_.rend()) open_.erase(std::prev(last.base()), open_.end());
  }
  std::string Finish() {
    EndData(true);
    return text_;
  }

 private:
  bool IsIn(std::initializer_list<std::string_view> tags) const {
    return absl::c_any_of(open_,
                          [&](const std::string& tag) { return absl::c_linear_search(tags, tag); });
  }
  // is_plain: what certain tags hold is none of the document's text.
  void EndData(bool is_text, bool is_plain = true) {
    if (!has_data_) return;
    if (data_.find_first_not_of(" \n\t\f\r") == std::string::npos && !IsIn({"pre", "textarea"}))
      data_.assign(1, absl::StrContains(data_, '\n') ? '\n' : ' ');
    if (is_text && !(is_plain && IsIn({"rt", "rp", "style", "script", "template"})))
      absl::StrAppend(&text_, data_);
    data_.clear();
    has_data_ = false;
  }

  std::vector<std::string> open_;
  std::string data_, text_;
  bool has_data_ = false;
};

// Python 3.11's html.parser.HTMLParser, with what bs4's subclass makes of its events. Members are
// named as there; npos stands for its -1.
class HtmlParser {
 public:
  explicit HtmlParser(std::string_view html) : raw_(html) {}

  std::string Run() {
    GoAhead(false);
    GoAhead(true);
    return tree_.Finish();
  }

 private:
  static constexpr size_t npos = std::string_view::npos;

  bool StartsWith(std::string_view what, size_t at) const {
    return raw_.substr(at).starts_with(what);
  }
  size_t OffsetOf(std::string_view part) const {
    return static_cast<size_t>(part.data() - raw_.data());
  }
  size_t EndOf(const Regex::Groups& groups) const {
    return OffsetOf(*groups[0]) + groups[0]->size();
  }

  // Where the text goes on, or npos where it does not until the end is known.
  size_t ParseMarkup();
  size_t ParseStartTag(size_t at);
  size_t EndOfStartTag(size_t at) const;
  size_t ParseEndTag(size_t at);
  size_t ParseDeclaration(size_t at);
  size_t ParseMarkedSection(size_t at);
  // Up to `close`.
  size_t ParseHidden(size_t at, size_t begin, std::string_view close);
  // False: nothing more is read in this pass.
  bool ParseReference(bool end);
  void GoAhead(bool end);
  void StartTag(const std::string& tag, bool is_closed);
  void EndTag(const std::string& tag);
  void Character(std::string_view digits, int base);

  std::string_view raw_;
  size_t at_ = 0;
  std::string cdata_;                        // the script or style that is open
  std::map<std::string, int> closed_early_;  // tags without an end, by name
  bool is_refused_ = false;
  TextOfTree tree_;
};

void HtmlParser::GoAhead(bool end) {
  while (at_ < raw_.size() && !is_refused_) {
    size_t next;
    if (cdata_.empty()) {
      next = std::min(raw_.find_first_of("&<", at_), raw_.size());
    } else {
      const Regex close(absl::StrCat(R"(</\s*)", cdata_, R"(\s*>)"), /*ignores_case=*/true);
      const std::optional<Regex::Groups> found = close.Search(raw_, at_);
      if (!found) break;
      next = OffsetOf(*found->front());
    }
    if (at_ < next) tree_.Data(raw_.substr(at_, next - at_));
    at_ = next;
    if (at_ == raw_.size()) break;
    if (raw_[at_] == '&') {
      if (!ParseReference(end)) break;
      continue;
    }
    if (at_ + 1 == raw_.size()) break;
    size_t behind = ParseMarkup();
    if (behind == npos) {
      if (!end) break;
      const size_t close = raw_.find('>', at_ + 1), open = raw_.find('<', at_ + 1);
      behind = close != npos ? close + 1 : open != npos ? open : at_ + 1;
      tree_.Data(raw_.substr(at_, behind - at_));
    }
    at_ = behind;
  }
  if (is_refused_ || (end && at_ < raw_.size() && cdata_.empty())) {
    tree_.Data(raw_.substr(at_));
    at_ = raw_.size();
  }
}

size_t HtmlParser::ParseMarkup() {
  if (IsLetter(raw_[at_ + 1])) return ParseStartTag(at_);
  if (StartsWith("</", at_)) return ParseEndTag(at_);
  if (StartsWith("<!--", at_)) {
    static const Regex& close = *new Regex(R"(--\s*>)");
    const std::optional<Regex::Groups> found = close.Search(raw_, at_ + 4);
    if (!found) return npos;
    tree_.Hidden(raw_.substr(at_ + 4, OffsetOf(*found->front()) - (at_ + 4)));
    return EndOf(*found);
  }
  if (StartsWith("<?", at_)) return ParseHidden(at_, at_ + 2, ">");
  if (StartsWith("<!", at_)) return ParseDeclaration(at_);
  tree_.Data("<");
  return at_ + 1;
}

bool HtmlParser::ParseReference(bool end) {
  static const Regex& number = *new Regex("&#(?:([0-9]+)|[xX]([0-9a-fA-F]+))(?=[^0-9a-fA-F]);?");
  static const Regex& entity = *new Regex("&([a-zA-Z][-.a-zA-Z0-9]*)(?=[^a-zA-Z0-9]);?");
  if (StartsWith("&#", at_)) {
    if (const std::optional<Regex::Groups> found = number.Match(raw_, at_)) {
      const Regex::Groups& groups = *found;
      Character(groups[1] ? *groups[1] : *groups[2], groups[1] ? 10 : 16);
      at_ = EndOf(groups);
      return true;
    }
    if (raw_.find(';', at_) != npos) {
      tree_.Data("&#");
      at_ += 2;
    }
    return false;
  }
  if (const std::optional<Regex::Groups> found = entity.Match(raw_, at_)) {
    const std::string name((*found)[1].value());
    // Names that need their semicolon are read without it as well.
    std::optional<std::string_view> text = EntityText(name);
    if (!text) text = EntityText(name + ";");
    tree_.Data(text ? std::string(*text) : "&" + name);
    at_ = EndOf(*found);
    return true;
  }
  if (at_ + 1 < raw_.size() && IsLetter(raw_[at_ + 1])) {
    if (end && at_ + 2 == raw_.size()) ++at_;
    return false;
  }
  if (at_ + 1 == raw_.size()) return false;
  tree_.Data("&");
  ++at_;
  return true;
}

void HtmlParser::Character(std::string_view digits, int base) {
  const uint32_t number = NumberOf(digits, base);
  std::string out;
  AppendUtf8(number == 0 || !IsCharacter(number) ? kReplacement : Windows1252(number), out);
  tree_.Data(out);
}

size_t HtmlParser::EndOfStartTag(size_t at) const {
  static const Regex& inside = *new Regex(
      R"(<[a-zA-Z][^\t\n\r\f />\x00]*(?:[\s/]*(?:(?<=['"\s/])[^\s/>][^\s/=>]*(?:\s*=+\s*(?:'[^']*'|"[^"]*"|(?!['"])[^>\s]*)\s*)?(?:\s|/(?!>))*)*)?\s*)");
  const size_t end = EndOf(*inside.Match(raw_, at));
  if (end == raw_.size()) return npos;
  const char next = raw_[end];
  if (next == '>') return end + 1;
  if (next == '/') return StartsWith("/>", end) ? end + 2 : npos;
  return IsLetter(next) || next == '=' ? npos : end;
}

const Regex& TagName() {
  static const Regex& name = *new Regex(R"(([a-zA-Z][^\t\n\r\f />\x00]*)(?:\s|/(?!>))*)");
  return name;
}

size_t HtmlParser::ParseStartTag(size_t at) {
  static const Regex& attribute = *new Regex(
      R"(((?<=['"\s/])[^\s/>][^\s/=>]*)(\s*=+\s*('[^']*'|"[^"]*"|(?!['"])[^>\s]*))?(?:\s|/(?!>))*)");
  const size_t end = EndOfStartTag(at);
  if (end == npos) return npos;
  const Regex::Groups found = *TagName().Match(raw_, at + 1);
  const std::string tag = LowerCase(found[1].value());
  size_t next = EndOf(found);
  while (next < end) {
    const std::optional<Regex::Groups> one = attribute.Match(raw_, next);
    if (!one) break;
    next = EndOf(*one);
  }
  const std::string_view close =
      next < end ? Strip(raw_.substr(next, end - next)) : std::string_view();
  if (close != ">" && close != "/>") {
    tree_.Data(raw_.substr(at, end - at));
    return end;
  }
  StartTag(tag, close == "/>");
  if (close == ">" && (tag == "script" || tag == "style")) cdata_ = tag;
  return end;
}

void HtmlParser::StartTag(const std::string& tag, bool is_closed) {
  static constexpr std::string_view kEmpty[] = {
      "area",     "base", "basefont", "bgsound", "br",     "col",     "command", "embed",
      "frame",    "hr",   "image",    "img",     "input",  "isindex", "keygen",  "link",
      "menuitem", "meta", "nextid",   "param",   "source", "spacer",  "track",   "wbr"};
  tree_.Open(tag);
  const bool is_empty = absl::c_linear_search(kEmpty, tag);
  if (is_closed || is_empty) tree_.Close(tag);
  if (!is_closed && is_empty) ++closed_early_[tag];
}

void HtmlParser::EndTag(const std::string& tag) {
  int& early = closed_early_[tag];
  if (early > 0) {
    --early;
  } else {
    tree_.Close(tag);
  }
}

size_t HtmlParser::ParseEndTag(size_t at) {
  static const Regex& whole = *new Regex(R"(</\s*([a-zA-Z][-.a-zA-Z0-9:_]*)\s*>)");
  const size_t close = raw_.find('>', at + 1);
  if (close == npos) return npos;
  const std::optional<Regex::Groups> found = whole.Match(raw_, at);
  const std::string tag = found ? LowerCase((*found)[1].value()) : "";
  if (!cdata_.empty() && tag != cdata_) {
    tree_.Data(raw_.substr(at, close + 1 - at));
    return close + 1;
  }
  if (found) {
    EndTag(tag);
    cdata_.clear();
    return close + 1;
  }
  const std::optional<Regex::Groups> name = TagName().Match(raw_, at + 2);
  if (!name) {
    return StartsWith("</>", at) ? at + 3 : ParseHidden(at, at + 2, ">");
  }
  EndTag(LowerCase((*name)[1].value()));
  return raw_.find('>', EndOf(*name)) + 1;
}

size_t HtmlParser::ParseHidden(size_t at, size_t begin, std::string_view close) {
  const size_t end = raw_.find(close, begin);
  if (end == npos) return npos;
  tree_.Hidden(raw_.substr(at, end - at));
  return end + close.size();
}

size_t HtmlParser::ParseDeclaration(size_t at) {
  if (StartsWith("<![", at)) return ParseMarkedSection(at);
  const bool is_doctype = LowerCase(raw_.substr(at, 9)) == "<!doctype";
  return ParseHidden(at, at + (is_doctype ? 9 : 2), ">");
}

size_t HtmlParser::ParseMarkedSection(size_t at) {
  static const Regex& keyword = *new Regex(R"(([a-zA-Z][-_.a-zA-Z0-9]*)\s*)");
  static const Regex& close = *new Regex(R"(]\s*]\s*>)");
  static const Regex& office_close = *new Regex(R"(]\s*>)");
  const size_t begin = at + 3;
  if (begin == raw_.size()) return npos;
  const std::optional<Regex::Groups> found = keyword.Match(raw_, begin);
  if (found && EndOf(*found) == raw_.size()) return npos;
  const std::string name = found ? LowerCase((*found)[1].value()) : "";
  const bool is_section = name == "temp" || name == "cdata" || name == "ignore" ||
                          name == "include" || name == "rcdata";
  if (!is_section && name != "if" && name != "else" && name != "endif") {
    is_refused_ = true;
    return at;
  }
  const std::optional<Regex::Groups> last = (is_section ? close : office_close).Search(raw_, begin);
  if (!last) return npos;
  const std::string_view section = raw_.substr(begin, OffsetOf(*last->front()) - begin);
  constexpr std::string_view kCData = "cdata[";
  if (LowerCase(section.substr(0, kCData.size())) == kCData) {
    tree_.CData(section.substr(kCData.size()));
  } else {
    tree_.Hidden(section);
  }
  return EndOf(*last);
}

}  // namespace

std::string UnescapeHtml(std::string_view text) {
  static const Regex& reference =
      *new Regex(R"(&(?:#([0-9]+);?|#[xX]([0-9a-fA-F]+);?|([^\t\n\f <&#;]{1,32};?)))");
  return reference.Replace(text, [](const Regex::Groups& groups) -> std::string {
    if (groups[1]) return UnescapeNumber(*groups[1], 10);
    if (groups[2]) return UnescapeNumber(*groups[2], 16);
    const std::string_view name = *groups[3];
    if (const std::optional<std::string_view> whole = EntityText(name)) return std::string(*whole);
    // The longest name that it begins with.
    for (size_t length = name.size() - 1; length > 1; --length) {
      if (const std::optional<std::string_view> part = EntityText(name.substr(0, length)))
        return absl::StrCat(std::string(*part), std::string(name.substr(length)));
    }
    return absl::StrCat("&", std::string(name));
  });
}

std::string HtmlText(std::string_view html) { return HtmlParser(html).Run(); }

}  // namespace kino::engine
