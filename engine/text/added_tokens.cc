#include "engine/text/added_tokens.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/text/unicode.h"

namespace kino::engine {
namespace {

// The start of the character that ends at `end`. REQUIRES: end > 0.
size_t CharacterBefore(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while ((static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  return begin;
}

bool TouchesWord(std::string_view text, size_t begin, size_t end) {
  if (begin > 0) {
    size_t pos = CharacterBefore(text, begin);
    if (IsWordCharacter(DecodeUtf8(text, &pos))) return true;
  }
  return end < text.size() && IsWordCharacter(DecodeUtf8(text, &end));
}

size_t SkipSpaceBackwards(std::string_view text, size_t end) {
  while (end > 0) {
    const size_t begin = CharacterBefore(text, end);
    size_t pos = begin;
    if (!IsWhiteSpace(DecodeUtf8(text, &pos))) break;
    end = begin;
  }
  return end;
}

size_t SkipSpace(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    size_t next = begin;
    if (!IsWhiteSpace(DecodeUtf8(text, &next))) break;
    begin = next;
  }
  return begin;
}

}  // namespace

absl::StatusOr<AddedToken> ParseAddedToken(const nlohmann::json& json, const std::string& where) {
  AddedToken token;
  if (json.is_string()) {
    token.content = json.get<std::string>();
    token.special = true;
    return token;
  }
  if (!json.is_object() || !json.contains("content")) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": expected a string or an object with 'content'"));
  }
  ConfigReader reader(json, where);
  token.content = reader.Get("content", std::string());
  token.single_word = reader.Get("single_word", false);
  token.lstrip = reader.Get("lstrip", false);
  token.rstrip = reader.Get("rstrip", false);
  token.special = reader.Get("special", false);
  const auto normalized = json.find("normalized");
  if (normalized != json.end() && !normalized->is_null())
    token.normalized = reader.Get("normalized", false);
  if (!reader.status().ok()) return reader.status();
  return token;
}

absl::StatusOr<AddedTokenMatcher> AddedTokenMatcher::Create(std::vector<Entry> entries,
                                                            Options options) {
  AddedTokenMatcher matcher;
  matcher.entries_ = std::move(entries);
  matcher.options_ = options;
  std::vector<ByteTrie::Entry> keys;
  for (size_t i = 0; i < matcher.entries_.size(); ++i) {
    const Entry& entry = matcher.entries_[i];
    if (entry.pattern.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "added token '", entry.token.content, "': nothing is left of it after normalisation"));
    }
    matcher.may_start_[static_cast<uint8_t>(entry.pattern[0])] = true;
    keys.push_back({entry.pattern, static_cast<uint32_t>(i)});
  }
  matcher.trie_ = ByteTrie::Build(std::move(keys));
  for (size_t i = 0; i < matcher.entries_.size(); ++i) {
    const Entry& entry = matcher.entries_[i];
    const size_t winner = matcher.trie_.Find(entry.pattern).value_or(static_cast<uint32_t>(i));
    if (winner == i) continue;
    return absl::InvalidArgumentError(absl::StrCat("added tokens '", entry.token.content, "' and '",
                                                   matcher.entries_[winner].token.content,
                                                   "' are the same text after normalisation"));
  }
  return matcher;
}

std::vector<AddedTokenMatcher::Segment> AddedTokenMatcher::Split(std::string_view text) const {
  std::vector<Segment> segments;
  size_t covered = 0;  // the text before this is in a segment
  size_t pos = 0;
  while (pos < text.size()) {
    if (!may_start_[static_cast<uint8_t>(text[pos])]) {
      ++pos;
      continue;
    }
    const Entry* found = nullptr;
    size_t length = 0;
    trie_.ForEachPrefix(text.substr(pos), [&](size_t bytes, uint32_t index) {
      found = &entries_[index];
      length = bytes;
    });
    if (found == nullptr) {
      ++pos;
      continue;
    }
    // The search goes on behind the token's own text even where the match is refused or takes
    // spaces along.
    size_t begin = pos;
    size_t end = pos + length;
    pos = end;
    if (options_.leaves_special_tokens && found->token.special) continue;
    if (found->token.single_word && TouchesWord(text, begin, end)) continue;
    if (found->token.lstrip) begin = std::max(SkipSpaceBackwards(text, begin), covered);
    if (found->token.rstrip) end = SkipSpace(text, end);
    if (covered < begin) segments.push_back({text.substr(covered, begin - covered), std::nullopt});
    // A token whose own leading spaces the one before took along starts inside that one; it counts
    // all the same.
    segments.push_back({text.substr(begin, end - begin), found->id});
    covered = end;
  }
  if (covered < text.size()) segments.push_back({text.substr(covered), std::nullopt});
  return segments;
}

}  // namespace kino::engine
