#include "server/command_line/utf8.h"

#include <gtest/gtest.h>

#include <vector>

namespace kino::command_line {
namespace {

// A character of each size, at both ends of what its size holds.
const std::vector<std::string> kCharacters = {
    "a",
    std::string(1, '\0'),
    "\x7f",
    "\xc2\x80",
    "\xdf\xbf",
    "\xe0\xa0\x80",
    "\xed\x9f\xbf",
    "\xee\x80\x80",
    "\xef\xbf\xbf",
    "\xf0\x90\x80\x80",
    "\xf4\x8f\xbf\xbf",
};

TEST(Utf8, EveryCharacterIsValid) {
  for (const std::string& character : kCharacters) {
    EXPECT_TRUE(IsUtf8(character)) << character;
    EXPECT_EQ(FindInvalidUtf8("x" + character + "\xff"), 1 + character.size());
  }
  EXPECT_TRUE(IsUtf8(""));
}

TEST(Utf8, WhatIsNoCharacterIsFound) {
  for (const std::string& bytes : std::vector<std::string>{
           "\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2\x41", "\xe0\x9f\xbf", "\xe0\xa0",
           "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x8f\xbf\xbf", "\xf0\x90\x80", "\xf4\x90\x80\x80",
           "\xf5\x80\x80\x80", "\xff", "caf\xe9"}) {
    EXPECT_FALSE(IsUtf8(bytes)) << bytes;
  }
  EXPECT_EQ(FindInvalidUtf8("caf\xe9!"), 3u);
}

// At every length: a beginning, valid, and no shorter than it has to be.
TEST(Utf8, TruncatingEndsWithAWholeCharacter) {
  std::string text;
  for (const std::string& character : kCharacters) text += character + character;
  for (size_t limit = 0; limit <= text.size() + 1; ++limit) {
    const std::string cut = TruncateUtf8(text, limit);
    EXPECT_EQ(text.compare(0, cut.size(), cut), 0) << limit;
    EXPECT_TRUE(IsUtf8(cut)) << limit;
    EXPECT_LE(cut.size(), limit);
    size_t best = 0;
    for (size_t end = 0; end <= std::min(limit, text.size()); ++end) {
      if (IsUtf8(text.substr(0, end))) best = end;
    }
    EXPECT_EQ(cut.size(), best) << limit;
  }
}

TEST(Utf8, OtherBytesAreReplacedOneByOne) {
  EXPECT_EQ(ToUtf8("caf\xe9 \xe2\x82\xac \xe2\x82"),
            "caf\xef\xbf\xbd \xe2\x82\xac \xef\xbf\xbd\xef\xbf\xbd");
  for (const std::string& character : kCharacters) EXPECT_EQ(ToUtf8(character), character);
  EXPECT_EQ(ToUtf8(""), "");
}

}  // namespace
}  // namespace kino::command_line
