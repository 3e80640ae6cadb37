#include "scheduler/random.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/support/seeded_random.h"

namespace kino::scheduler {
namespace {

TEST(RandomTest, TokensAreThirtyTwoHexadecimalDigitsAndDiffer) {
  SystemRandom random;
  std::set<std::string> tokens;
  for (int i = 0; i < 1000; ++i) {
    const std::string token = MakeToken(random);
    EXPECT_THAT(token, testing::MatchesRegex("[0-9a-f]{32}"));
    tokens.insert(token);
  }
  EXPECT_EQ(tokens.size(), 1000u);
}

TEST(RandomTest, IdsAreSafeInUrlsAndSortByTime) {
  SeededRandom random(7);
  std::string last;
  for (int i = 0; i < 1000; ++i) {
    const std::string id = MakeId(absl::FromUnixMillis(1'800'000'000'000 + i), random);
    EXPECT_THAT(id, testing::MatchesRegex("[0-9a-hjkmnp-tv-z]{26}"));
    EXPECT_GT(id, last);
    last = id;
  }
}

TEST(RandomTest, IdsOfOneMillisecondDiffer) {
  SystemRandom random;
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) ids.insert(MakeId(absl::FromUnixMillis(1), random));
  EXPECT_EQ(ids.size(), 1000u);
}

TEST(RandomTest, UniformDoublesFillTheHalfOpenInterval) {
  SeededRandom random(1);
  double lowest = 1, highest = 0;
  for (int i = 0; i < 10000; ++i) {
    const double value = UniformDouble(random);
    ASSERT_GE(value, 0);
    ASSERT_LT(value, 1);
    lowest = std::min(lowest, value);
    highest = std::max(highest, value);
  }
  EXPECT_LT(lowest, 0.01);
  EXPECT_GT(highest, 0.99);
}

}  // namespace
}  // namespace kino::scheduler
