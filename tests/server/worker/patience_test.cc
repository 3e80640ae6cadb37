#include "server/worker/patience.h"

#include <gtest/gtest.h>

namespace kino::worker {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(100);
constexpr absl::Duration kLimit = absl::Seconds(10);

class PatienceTest : public ::testing::Test {
 protected:
  // The loop goes round for `duration`, as it should.
  void Run(absl::Duration duration) {
    for (const absl::Duration end = now_ + duration; now_ < end;) {
      now_ += kTick;
      patience_.Round(now_, heard_);
    }
  }
  absl::Duration now_ = absl::Hours(100);
  absl::Duration heard_ = now_;
  Patience patience_;
};

TEST_F(PatienceTest, EndsAfterTheLimit) {
  Run(absl::Seconds(9.9));
  EXPECT_FALSE(patience_.IsOver(kLimit));
  Run(absl::Seconds(0.2));
  EXPECT_TRUE(patience_.IsOver(kLimit));
}

TEST_F(PatienceTest, AWordStartsItAgain) {
  Run(absl::Seconds(9));
  heard_ = now_;
  Run(absl::Seconds(9));
  EXPECT_FALSE(patience_.IsOver(kLimit));
  Run(absl::Seconds(1.2));
  EXPECT_TRUE(patience_.IsOver(kLimit));
}

TEST_F(PatienceTest, TheTimeTheProcessStoodStillIsNotCounted) {
  Run(absl::Seconds(5));
  now_ += absl::Hours(3);
  patience_.Round(now_, heard_);
  EXPECT_FALSE(patience_.IsOver(kLimit));
  Run(absl::Seconds(3.9));
  EXPECT_FALSE(patience_.IsOver(kLimit));
  Run(absl::Seconds(0.3));
  EXPECT_TRUE(patience_.IsOver(kLimit)) << "the standstill counts as one long round";
}

TEST_F(PatienceTest, AfterAStandstillItListensFirst) {
  Run(absl::Seconds(9.9));
  now_ += absl::Seconds(60);
  patience_.Round(now_, heard_);
  EXPECT_FALSE(patience_.IsOver(kLimit)) << "what came meanwhile has not been read";
  Run(Patience::kListenFirst - kTick);
  EXPECT_FALSE(patience_.IsOver(kLimit));
  Run(2 * kTick);
  EXPECT_TRUE(patience_.IsOver(kLimit));
}

TEST_F(PatienceTest, WhatWasHeardAfterAStandstillSavesIt) {
  Run(absl::Seconds(9.9));
  now_ += absl::Seconds(60);
  patience_.Round(now_, heard_);
  heard_ = now_;
  Run(absl::Seconds(9.8));
  EXPECT_FALSE(patience_.IsOver(kLimit));
}

TEST_F(PatienceTest, StandstillsInARowAreAllListenedAfter) {
  Run(absl::Seconds(20));
  ASSERT_TRUE(patience_.IsOver(kLimit));
  for (int i = 0; i < 5; ++i) {
    now_ += absl::Seconds(5);
    patience_.Round(now_, heard_);
    EXPECT_FALSE(patience_.IsOver(kLimit));
    Run(absl::Seconds(1));
    EXPECT_FALSE(patience_.IsOver(kLimit));
  }
  Run(absl::Seconds(1.5));
  EXPECT_TRUE(patience_.IsOver(kLimit));
}

TEST_F(PatienceTest, WhatWasSilentLongBeforeTheFirstRoundIsHeardOutToo) {
  heard_ = now_ - absl::Hours(1);
  patience_.Round(now_, heard_);
  EXPECT_FALSE(patience_.IsOver(kLimit));
  EXPECT_LE(patience_.waited(), Patience::kLongRound);
}

}  // namespace
}  // namespace kino::worker
