#include "server/supervisor/backoff.h"

#include <gtest/gtest.h>

namespace kino::supervisor {
namespace {

constexpr absl::Duration kHealthy = absl::Seconds(60);
constexpr absl::Duration kBrief = absl::Milliseconds(59'999);

TEST(RestartBackoffTest, PausesDoubleUpToTheLargest) {
  RestartBackoff backoff(absl::Seconds(1), absl::Seconds(5), kHealthy);
  for (const int seconds : {1, 2, 4, 5, 5})
    EXPECT_EQ(backoff.NextPause(kBrief), absl::Seconds(seconds));
}

TEST(RestartBackoffTest, ChildThatRanLongEnoughStartsOverAtTheSmallest) {
  RestartBackoff backoff(absl::Seconds(1), absl::Seconds(5), kHealthy);
  for (int i = 0; i < 3; ++i) backoff.NextPause(kBrief);
  EXPECT_EQ(backoff.NextPause(kHealthy), absl::Seconds(1));
  EXPECT_EQ(backoff.NextPause(kBrief), absl::Seconds(2));
}

}  // namespace
}  // namespace kino::supervisor
