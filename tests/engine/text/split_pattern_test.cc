// Characters and regular expressions against Hugging Face tokenizers' own.
#include "engine/text/split_pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/core/json.h"
#include "engine/text/normal_form.h"
#include "engine/text/split_syntax.h"
#include "engine/text/tokenizer_tables.h"
#include "engine/text/unicode.h"
#include "tests/support/fixture_folder.h"

namespace kino::engine {
namespace {

using ::testing::HasSubstr;

class SplitPatternTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<FixtureFolder>();
    ASSERT_NO_FATAL_FAILURE(
        folder_->RunOracle("text/bpe_fixtures.py", "characters " + std::to_string(TestSeed())));
    auto cases = ReadJsonFile(folder_->path() + "/characters.json");
    ASSERT_TRUE(cases.ok()) << cases.status();
    cases_ = std::make_unique<nlohmann::json>(*std::move(cases));
  }
  static void TearDownTestSuite() {
    folder_.reset();
    cases_.reset();
  }

  static std::unique_ptr<FixtureFolder> folder_;
  static std::unique_ptr<nlohmann::json> cases_;
};

std::unique_ptr<FixtureFolder> SplitPatternTest::folder_;
std::unique_ptr<nlohmann::json> SplitPatternTest::cases_;

size_t Characters(std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); ++count) DecodeUtf8(text, &at);
  return count;
}

// Code points where `pattern` begins or ends to match, as the fixture has them.
std::vector<uint32_t> Flips(const SplitPattern& pattern) {
  std::vector<uint32_t> out;
  bool last = false;
  for (char32_t block = 0; block < 0x110000; block += 0x1000) {
    std::string text;
    for (char32_t c = block; c < block + 0x1000; ++c) {
      if (c < 0xD800 || c >= 0xE000) AppendUtf8(c, text);
    }
    const auto pieces = pattern.Split(text);
    EXPECT_TRUE(pieces.ok()) << pieces.status();
    if (!pieces.ok()) return out;
    for (const SplitPattern::Piece& piece : *pieces) {
      size_t at = 0;
      if (piece.is_match != last) out.push_back(DecodeUtf8(piece.text, &at));
      last = piece.is_match;
    }
  }
  return out;
}

TEST_F(SplitPatternTest, EveryCodePointIsOfTheClassesTheReferenceHasItIn) {
  ASSERT_GE((*cases_)["flips"].size(), 10u);
  for (const auto& [text, expected] : (*cases_)["flips"].items()) {
    const auto pattern = SplitPattern::Create(text);
    ASSERT_TRUE(pattern.ok()) << pattern.status();
    EXPECT_TRUE(Flips(*pattern) == expected.get<std::vector<uint32_t>>()) << text;
  }
}

TEST_F(SplitPatternTest, PatternsOfPublishedFilesSplitAsTheReferenceDoes) {
  std::vector<std::string> texts;
  for (const auto& text : (*cases_)["texts"]) texts.push_back(text);
  ASSERT_GT(texts.size(), 1200u);
  for (const auto& split : (*cases_)["splits"]) {
    SCOPED_TRACE(split["pattern"].get<std::string>());
    const auto pattern = SplitPattern::Create(split["pattern"]);
    EXPECT_TRUE(pattern.ok()) << pattern.status();
    if (!pattern.ok()) continue;
    int wrong = 0;
    for (size_t i = 0; i < texts.size() && wrong < 5; ++i) {
      const auto pieces = pattern->Split(texts[i]);
      ASSERT_TRUE(pieces.ok()) << pieces.status();
      std::vector<size_t> lengths;
      std::string together;
      for (const SplitPattern::Piece& piece : *pieces) {
        lengths.push_back(Characters(piece.text));
        together += piece.text;
      }
      EXPECT_EQ(together, texts[i]);
      const auto expected = split["pieces"][i].get<std::vector<size_t>>();
      EXPECT_EQ(lengths, expected) << nlohmann::json(texts[i]).dump(-1, ' ', true).substr(0, 300);
      wrong += lengths != expected;
    }
  }
}

TEST_F(SplitPatternTest, NormalFormAndLowerCaseAreTheReferences) {
  const NormalForms forms = {
      .combining = {kTokenizerCombiningBoundaries, kTokenizerCombiningBoundaryCount},
      .unknown = {kTokenizerUnknownDecompositions, kTokenizerUnknownDecompositionCount}};
  ASSERT_GT((*cases_)["forms"].size(), 1500u);
  int wrong = 0;
  for (const auto& row : (*cases_)["forms"]) {
    const auto text = row[0].get<std::string>();
    const std::string shown = row[0].dump(-1, ' ', true).substr(0, 300);
    EXPECT_EQ(NormalizeNfc(text, forms), row[1].get<std::string>()) << shown;
    std::string lower;
    for (size_t at = 0; at < text.size();) {
      AppendLower(DecodeUtf8(text, &at), {kTokenizerLowerRuns, kTokenizerLowerRunCount}, lower);
    }
    EXPECT_EQ(lower, row[2].get<std::string>()) << shown;
    wrong += lower != row[2].get<std::string>() || NormalizeNfc(text, forms) != row[1];
    if (wrong > 5) break;
  }
}

TEST(SplitSyntaxTest, WhatMeansTheSameIsAccepted) {
  for (const char* pattern : {R"(a|b)", R"(\p{L}+\P{Nd}?)", R"([^\s\p{L}\-\]]{1,3})",
                              R"((?:a|(?=b)|(?!c)|(?<=d)|(?<!e)f))", R"((?i:'s|don't))",
                              R"(\|\.\*\\)", R"(a?+b*+c++d??e*?f+?)", R"((?>a)(b))", "x{2}y{2,}"}) {
    EXPECT_TRUE(CheckSplitSyntax(pattern).ok()) << pattern << CheckSplitSyntax(pattern);
  }
}

TEST(SplitSyntaxTest, WhatMeansSomethingElseIsRefusedByName) {
  const struct {
    const char* pattern;
    const char* says;
  } cases[] = {
      {R"(\w+)", R"('\w' at its byte 0)"},
      {R"(a\b)", R"('\b' at its byte 1)"},
      {R"(\p{Han})", R"('\p{Han}')"},
      {R"(\p{^L})", R"('\p{^L}')"},
      {R"(\pL)", R"('\p')"},
      {R"(\x41)", R"('\x')"},
      {R"(\1)", R"('\1')"},
      {"a\\", "'\\'"},
      {"^a", "'^'"},
      {"a$", "'$'"},
      {"a.c", "'.'"},
      {"[a[b]]", "'['"},
      {"[[:alpha:]]", "'['"},
      {"[a&&b]", "'&&'"},
      {"[]a]", "']'"},
      {"[a", "no end"},
      {"a]", "']'"},
      {"(?m)a", "'(?m'"},
      {"(?i)a", "'(?i'"},
      {"(?<n>a)", "'(?<'"},
      {"(*UCP)a", "'(*'"},
      {"(?i:\\p{L})", "'\\'"},
      {"(?i:[a])", "'['"},
      {"(?i:first)", "'fi'"},
      {"(?i:aST)", "'ST'"},
      {"a{1,3}+", "'{1,3}+'"},
      {"a{1,3}?", "'{1,3}?'"},
      {"a{,3}", "'{'"},
      {"a{99999}", "'{'"},
      {"a}", "'}'"},
      {"\u00e9", "'\u00e9'"},
      {"a\nb", "at its byte 1"},
  };
  for (const auto& c : cases) {
    const absl::Status status = CheckSplitSyntax(c.pattern);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.pattern;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.says));
    EXPECT_FALSE(SplitPattern::Create(c.pattern).ok());
  }
}

TEST(SplitPatternCreateTest, PatternsThatCannotSplitAreRefused) {
  for (const char* pattern : {"", "a*", "a|", "(?=a)", "(a", "a)", "*a", "a{3,2}", "(?<=a+)b"}) {
    const auto made = SplitPattern::Create(pattern);
    EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument) << pattern;
  }
  EXPECT_FALSE(SplitPattern::Create(std::string(5000, 'a')).ok());
}

// More to come back to than the compiled search has room for is searched without it.
TEST(SplitPatternCreateTest, ALongRunOfAlternativesIsOneMatch) {
  const auto pattern = SplitPattern::Create("(?:a|bc)+");
  ASSERT_TRUE(pattern.ok()) << pattern.status();
  const std::string run(20000, 'a');
  const std::string text = run + "b";
  const auto pieces = pattern->Split(text);
  ASSERT_TRUE(pieces.ok()) << pieces.status();
  ASSERT_EQ(pieces->size(), 2u);
  EXPECT_EQ((*pieces)[0].text, run);
  EXPECT_TRUE((*pieces)[0].is_match);
  EXPECT_EQ((*pieces)[1].text, "b");
}

// Nested repetition takes exponentially many steps, which end in a refusal, not in hours.
TEST(SplitPatternCreateTest, SearchWithoutEndIsRefused) {
  const auto pattern = SplitPattern::Create(R"((?:a+a+)+b)");
  ASSERT_TRUE(pattern.ok()) << pattern.status();
  const auto pieces = pattern->Split(std::string(64, 'a') + "cb");
  EXPECT_EQ(pieces.status().code(), absl::StatusCode::kInvalidArgument) << pieces.status();
  EXPECT_THAT(std::string(pieces.status().message()), HasSubstr("too involved"));
}

}  // namespace
}  // namespace kino::engine
