#include "engine/text/unigram.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "engine/text/byte_trie.h"

namespace kino::engine {
namespace {

using Ids = std::vector<int64_t>;
using ::testing::HasSubstr;

Unigram Model(const std::vector<UnigramPiece>& pieces) {
  auto model = Unigram::Create(pieces, 0);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

Ids Encoded(const Unigram& model, const std::string& word) {
  Ids ids;
  model.Encode(word, &ids);
  return ids;
}

TEST(UnigramTest, TheMostProbableSplitWins) {
  const Unigram model = Model({{"<unk>", 0},
                               {"a", 0},
                               {"b", 0},
                               {"c", 0},
                               {"d", 0},
                               {"cd", 1},
                               {"ab", 2},
                               {"abc", 5},
                               {"abcd", 10}});
  EXPECT_EQ(Encoded(model, "abcdacdxx"), (Ids{8, 1, 5, 0}));
  EXPECT_EQ(Encoded(model, ""), Ids{});
}

TEST(UnigramTest, OfEqualSplitsTheOneWithTheEarlierBoundaryStays) {
  // a|bc and ab|c score the same: the path that reaches the end from the earlier boundary is found
  // first.
  const Unigram model = Model({{"<unk>", 0}, {"a", -1}, {"c", -1}, {"ab", -2}, {"bc", -2}});
  EXPECT_EQ(Encoded(model, "abc"), (Ids{1, 4}));
}

TEST(UnigramTest, NeighbouringUnknownsAreOne) {
  const Unigram model = Model({{"<unk>", 0}, {"a", -1}});
  EXPECT_EQ(Encoded(model, "\u2603\u2603a\u2603"), (Ids{0, 1, 0}));
}

TEST(UnigramTest, UnknownCostsTenMoreThanTheWorstPiece) {
  // "x" alone is unknown: -8 - 10 beats no piece but "xy" at -17.5, and loses to "xyz" + nothing at
  // -18.5.
  EXPECT_EQ(Encoded(Model({{"<unk>", 0}, {"y", 9.5}, {"xy", -8}}), "xy"), (Ids{2}));
  EXPECT_EQ(Encoded(Model({{"<unk>", 0}, {"y", 10.5}, {"xy", -8}}), "xy"), (Ids{0, 1}));
}

TEST(UnigramTest, OfEqualPiecesTheLastCounts) {
  const Unigram model = Model({{"<unk>", 0}, {"a", -1}, {"a", -2}, {"", -3}});
  EXPECT_EQ(Encoded(model, "a"), (Ids{2}));
  EXPECT_EQ(model.Find("a"), 2);
  EXPECT_EQ(model.Find(""), std::nullopt);
  EXPECT_EQ(model.size(), 4);
}

TEST(UnigramTest, BadVocabulariesAreRefused) {
  EXPECT_THAT(std::string(Unigram::Create({}, 0).status().message()), HasSubstr("0 pieces"));
  EXPECT_THAT(std::string(Unigram::Create({{"a", 0}}, 2).status().message()),
              HasSubstr("1 pieces, expected 3"));
  EXPECT_THAT(
      std::string(
          Unigram::Create({{"a", std::numeric_limits<double>::quiet_NaN()}}, 0).status().message()),
      HasSubstr("piece 0: score"));
  EXPECT_THAT(std::string(Unigram::Create({{"a", 0}, {"\xc3", 0}}, 0).status().message()),
              HasSubstr("piece 1: text"));
}

TEST(ByteTrieTest, FindsEveryPrefixShortestFirst) {
  const ByteTrie trie =
      ByteTrie::Build({{"a", 1}, {"abc", 3}, {"ab", 2}, {"b", 9}, {"\xff\xfe", 7}, {"abc", 4}});
  std::vector<std::pair<size_t, uint32_t>> found;
  trie.ForEachPrefix("abcd",
                     [&](size_t length, uint32_t value) { found.emplace_back(length, value); });
  EXPECT_EQ(found, (std::vector<std::pair<size_t, uint32_t>>{{1, 1}, {2, 2}, {3, 4}}));
  EXPECT_EQ(trie.Find("\xff\xfe"), 7u);
  EXPECT_EQ(trie.Find("\xff"), std::nullopt);
  EXPECT_EQ(trie.Find("abcd"), std::nullopt);
  EXPECT_EQ(ByteTrie().Find("a"), std::nullopt);
}

}  // namespace
}  // namespace kino::engine
