#include "engine/text/bpe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/byte_level.h"

namespace kino::engine {
namespace {

using ::testing::HasSubstr;
using Ids = std::vector<int64_t>;

// The tokens of `ids` by a vocabulary in which each token's id is its place.
class BpeTest : public ::testing::Test {
 protected:
  static BpeModel Model(const std::vector<std::string>& tokens,
                        std::vector<std::pair<std::string, std::string>> merges) {
    BpeModel model;
    for (const std::string& token : tokens) {
      model.vocab.emplace(token, static_cast<int32_t>(model.vocab.size()));
    }
    model.merges = std::move(merges);
    return model;
  }
  static Ids Encoded(BpeModel model, const std::string& word) {
    auto bpe = Bpe::Create(std::move(model));
    EXPECT_TRUE(bpe.ok()) << bpe.status();
    Ids ids;
    if (bpe.ok()) bpe->Encode(word, &ids);
    return ids;
  }
};

TEST_F(BpeTest, PairsMergeInTheOrderLearntTheLeftmostFirst) {
  const std::vector<std::string> tokens = {"a", "b", "c", "ab", "bc", "aa"};
  EXPECT_EQ(Encoded(Model(tokens, {{"a", "b"}, {"b", "c"}}), "abc"), (Ids{3, 2}));
  EXPECT_EQ(Encoded(Model(tokens, {{"b", "c"}, {"a", "b"}}), "abc"), (Ids{0, 4}));
  EXPECT_EQ(Encoded(Model(tokens, {{"a", "a"}}), "aaa"), (Ids{5, 0}));
  EXPECT_EQ(Encoded(Model(tokens, {{"a", "a"}, {"a", "b"}}), "aaab"), (Ids{5, 3}));
  EXPECT_EQ(Encoded(Model(tokens, {}), "abc"), (Ids{0, 1, 2}));
}

TEST_F(BpeTest, WhatMergesMakeMergesOn) {
  EXPECT_EQ(
      Encoded(Model({"a", "b", "ab", "abab", "ababab"}, {{"a", "b"}, {"ab", "ab"}, {"abab", "ab"}}),
              "ababababab"),
      (Ids{3, 4}));
}

// Of a pair that is listed twice the later place counts.
TEST_F(BpeTest, TheLastOfEqualMergesCounts) {
  const std::vector<std::string> tokens = {"a", "b", "c", "ab", "bc"};
  EXPECT_EQ(Encoded(Model(tokens, {{"a", "b"}, {"b", "c"}, {"a", "b"}}), "abc"), (Ids{0, 4}));
}

TEST_F(BpeTest, TheLastByteOfAWordHasItsSuffix) {
  BpeModel model =
      Model({"a", "b", "a</w>", "b</w>", "ab</w>", "ab"}, {{"a", "b</w>"}, {"a", "b"}});
  model.end_of_word_suffix = "</w>";
  EXPECT_EQ(Encoded(model, "ab"), (Ids{4}));
  EXPECT_EQ(Encoded(model, "abb"), (Ids{5, 3}));
  EXPECT_EQ(Encoded(model, "a"), (Ids{2}));
}

TEST_F(BpeTest, UnknownBytesAreLeftOutOrStandAsOneToken) {
  const std::vector<std::string> tokens = {"a", "?", "ab"};
  BpeModel model = Model(tokens, {});
  EXPECT_EQ(Encoded(model, "axxay"), (Ids{0, 0}));
  EXPECT_EQ(Encoded(model, "xx"), Ids());
  model.unk_token = "?";
  EXPECT_EQ(Encoded(model, "axxay"), (Ids{0, 1, 1, 0, 1}));
  model.fuse_unk = true;
  EXPECT_EQ(Encoded(model, "axxay"), (Ids{0, 1, 0, 1}));
}

TEST_F(BpeTest, WholeWordsAreTakenWhereMergesAreIgnored) {
  BpeModel model = Model({"a", "b", "\u0120", "\u0120ab", "ab"}, {{"a", "b"}});
  EXPECT_EQ(Encoded(model, " ab"), (Ids{2, 4}));
  model.ignore_merges = true;
  EXPECT_EQ(Encoded(model, " ab"), (Ids{3}));
  EXPECT_EQ(Encoded(model, " abb"), (Ids{2, 4, 1}));
}

TEST_F(BpeTest, ModelsThatDoNotHoldTogetherAreRefused) {
  const auto refusal = [](BpeModel model) {
    const auto bpe = Bpe::Create(std::move(model));
    EXPECT_EQ(bpe.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(bpe.status().message());
  };
  EXPECT_THAT(refusal(Model({}, {})), HasSubstr("vocabulary is empty"));
  EXPECT_THAT(refusal(Model({"a", "b"}, {{"a", "b"}})), HasSubstr("'ab' is not in the vocabulary"));
  EXPECT_THAT(refusal(Model({"a", "ab"}, {{"a", "b"}})), HasSubstr("'b' is not in the vocabulary"));
  BpeModel negative = Model({"a"}, {});
  negative.vocab["b"] = -2;
  EXPECT_THAT(refusal(negative), HasSubstr("'b' has the id -2"));
  BpeModel unknown = Model({"a"}, {});
  unknown.unk_token = "?";
  EXPECT_THAT(refusal(unknown), HasSubstr("unk_token '?'"));
}

TEST(ByteLevelTest, EachByteHasACharacterOfItsOwn) {
  EXPECT_EQ(ByteLevelSpelling(" a\n~\xc3\xa9"), "\u0120a\u010a~\u00c3\u00a9");
  EXPECT_EQ(ByteLevelCharacter(0), "\u0100");
  EXPECT_EQ(ByteLevelCharacter(0x7F), "\u0121");
  EXPECT_EQ(ByteLevelCharacter(0xA0), "\u0142");
  EXPECT_EQ(ByteLevelCharacter(0xAD), "\u0143");
  std::vector<std::string> all;
  for (unsigned byte = 0; byte < 256; ++byte) {
    all.emplace_back(ByteLevelCharacter(static_cast<unsigned char>(byte)));
  }
  std::sort(all.begin(), all.end());
  EXPECT_EQ(std::adjacent_find(all.begin(), all.end()), all.end());
}

}  // namespace
}  // namespace kino::engine
