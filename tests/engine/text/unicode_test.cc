#include "engine/text/unicode.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace kino::engine {
namespace {

std::string Encoded(char32_t c) {
  std::string out;
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
  if (c < 0x10000) {
    return {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 0x3F)),
            static_cast<char>(0x80 | (c & 0x3F))};
  }
  return {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 0x3F)),
          static_cast<char>(0x80 | (c >> 6 & 0x3F)), static_cast<char>(0x80 | (c & 0x3F))};
}

TEST(UnicodeTest, EveryCodePointSurvivesDecoding) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    const std::string text = Encoded(c);
    ASSERT_EQ(Utf8ErrorOffset(text), text.size()) << static_cast<uint32_t>(c);
    ASSERT_EQ(Utf8Length(text[0]), text.size());
    size_t pos = 0;
    ASSERT_EQ(DecodeUtf8(text, &pos), c);
    ASSERT_EQ(pos, text.size());
  }
}

TEST(UnicodeTest, IllFormedUtf8IsFoundAtItsFirstByte) {
  for (const std::string bad :
       {"\x80", "\xbf", "\xc0\xaf", "\xc1\xbf", "\xc2", "\xe0\x80\x80", "\xe1\x80", "\xed\xa0\x80",
        "\xed\xbf\xbf", "\xf0\x80\x80\x80", "\xf0\x90\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
        "\xff", "\xc3(", "\xe1\x80("}) {
    EXPECT_EQ(Utf8ErrorOffset("xy" + bad + "z"), 2u);
  }
}

TEST(UnicodeTest, ClustersFollowTheRulesOfUax29) {
  // Each row is one text, cut where a cluster ends.
  const std::vector<std::vector<std::u32string>> rows = {
      {U"a", U"b"},
      {U"\r\n", U"\n", U"\r", U"x"},           // GB3, GB4
      {U"\x01", U"\u0301", U"a\u0301\u0302"},  // GB4, GB9
      {U"\u1100\u1161\u11a8", U"\u1100"},      // GB6 to GB8
      {U"\uac00\u11a8\u11a8", U"\uac00"},
      {U"\u0915\u093e", U"a"},        // GB9a
      {U"\u0600a", U"b"},             // GB9b
      {U"\u0600", U"\n"},             // GB5 before GB9b
      {U"\u0915\u094d\u0937", U"a"},  // GB9c
      {U"\u0915\u094d\u200d\u0937"},
      {U"\u0915\u093c\u094d\u0937"},
      {U"\u0915\u200d", U"\u0937"},                    // no linker
      {U"\u0915\u094d\u200c", U"\u0937"},              // U+200C ends the conjunct
      {U"a\u094d", U"\u0937"},                         // no consonant before the linker
      {U"\U0001F468\u200d\U0001F469", U"\U0001F467"},  // GB11
      {U"\U0001F468\U0001F3FD\u200d\U0001F469"},
      {U"\U0001F468\u200d\u200d", U"\U0001F469"},
      {U"a\u200d", U"\U0001F469"},
      {U"\U0001F1E9\U0001F1EA", U"\U0001F1EB\U0001F1F7", U"\U0001F1E9"},  // GB12, GB13
      {U"\U0001F1E9\u0301", U"\U0001F1EA"},
      {U"\u00aa\u0897"},       // Extend since Unicode 16
      {U"\u00aa", U"\u05c8"},  // not Extend in Unicode 17
  };
  for (const auto& row : rows) {
    std::string text;
    std::vector<size_t> ends;
    for (const std::u32string& cluster : row) {
      for (const char32_t c : cluster) text += Encoded(c);
      ends.push_back(text.size());
    }
    std::vector<size_t> found;
    for (size_t pos = 0; pos < text.size();) {
      pos = GraphemeEnd(text, pos);
      found.push_back(pos);
    }
    EXPECT_EQ(found, ends) << text;
  }
}

TEST(UnicodeTest, WhiteSpaceIsTheProperty) {
  std::vector<char32_t> found;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (IsWhiteSpace(c)) found.push_back(c);
  }
  const std::vector<char32_t> expected = {0x9,    0xA,    0xB,    0xC,    0xD,    0x20,   0x85,
                                          0xA0,   0x1680, 0x2000, 0x2001, 0x2002, 0x2003, 0x2004,
                                          0x2005, 0x2006, 0x2007, 0x2008, 0x2009, 0x200A, 0x2028,
                                          0x2029, 0x202F, 0x205F, 0x3000};
  EXPECT_EQ(found, expected);
}

TEST(UnicodeTest, WordCharactersAreLettersMarksDigitsAndConnectors) {
  for (const char32_t c : std::u32string(U"aZ09_\u00e9\u0301\u4e2d\u0663\u203f\u200d\u24b6")) {
    EXPECT_TRUE(IsWordCharacter(c)) << static_cast<uint32_t>(c);
  }
  for (const char32_t c : std::u32string(U" -<>.\u00b2\u2603\u00a0\u200b\U0001F600")) {
    EXPECT_FALSE(IsWordCharacter(c)) << static_cast<uint32_t>(c);
  }
}

}  // namespace
}  // namespace kino::engine
