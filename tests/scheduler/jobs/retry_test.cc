#include "scheduler/jobs/retry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kino::scheduler {
namespace {

struct Case {
  const char* name;
  FailureCause cause;
  int attempt;
  FailureCounts failures;
  JobTrigger want;
};

class RetryVerdictTest : public testing::TestWithParam<Case> {};

TEST_P(RetryVerdictTest, FollowsFromCauseAndCounts) {
  const Case& c = GetParam();
  const RetryVerdict verdict = DecideAfterFailure({},
                                                  {.number = c.attempt,
                                                   .cause = c.cause,
                                                   .error = absl::InternalError("it broke"),
                                                   .failures = c.failures},
                                                  0.5);
  EXPECT_EQ(verdict.trigger, c.want) << JobTriggerName(verdict.trigger);
  EXPECT_FALSE(verdict.reason.empty());
  const bool is_end = c.want == JobTrigger::kFailed || c.want == JobTrigger::kQuarantined;
  EXPECT_EQ(verdict.error.ok(), !is_end) << verdict.error;
  if (is_end) {
    EXPECT_THAT(std::string(verdict.error.message()), testing::HasSubstr("it broke"));
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, RetryVerdictTest,
    testing::Values(
        Case{"ClientErrorIsFinal", FailureCause::kClient, 1, {}, JobTrigger::kFailed},
        Case{"BrokenModelIsFinal", FailureCause::kModel, 1, {}, JobTrigger::kFailed},
        Case{"RunTimeoutIsFinal", FailureCause::kRunTimeout, 1, {}, JobTrigger::kFailed},
        Case{"CancelledEndsTheJob", FailureCause::kCancelled, 1, {}, JobTrigger::kCancelled},
        Case{"InternalErrorRunsAgain", FailureCause::kInternal, 3, {}, JobTrigger::kAttemptLost},
        Case{"FourthInternalErrorIsFinal", FailureCause::kInternal, 4, {}, JobTrigger::kFailed},
        Case{"LostLeaseRunsAgain", FailureCause::kLeaseLost, 1, {}, JobTrigger::kAttemptLost},
        Case{"FourthLostLeaseIsFinal", FailureCause::kLeaseLost, 4, {}, JobTrigger::kFailed},
        Case{"FirstCrashRunsAgain",
             FailureCause::kCrash,
             1,
             {.crashes = 1},
             JobTrigger::kAttemptLost},
        Case{"SecondCrashQuarantines",
             FailureCause::kCrash,
             2,
             {.crashes = 2},
             JobTrigger::kQuarantined},
        Case{"HangCountsAsCrash", FailureCause::kHang, 2, {.crashes = 2}, JobTrigger::kQuarantined},
        Case{"SecondOutOfMemoryRunsAgain",
             FailureCause::kOutOfMemory,
             2,
             {.out_of_memory = 2},
             JobTrigger::kAttemptLost},
        Case{"ThirdOutOfMemoryIsFinal",
             FailureCause::kOutOfMemory,
             3,
             {.out_of_memory = 3},
             JobTrigger::kFailed},
        Case{"InterruptionsDoNotUseUpAttempts",
             FailureCause::kInterrupted,
             19,
             {.interruptions = 19},
             JobTrigger::kAttemptLost},
        Case{"InterruptionsBeforeFailuresAreFree",
             FailureCause::kInternal,
             13,
             {.interruptions = 10},
             JobTrigger::kAttemptLost},
        Case{"TwentyInterruptionsAreEnough",
             FailureCause::kInterrupted,
             20,
             {.interruptions = 20},
             JobTrigger::kFailed},
        Case{"InterruptionAfterCrashIsNoCrash",
             FailureCause::kInterrupted,
             2,
             {.crashes = 1, .interruptions = 1},
             JobTrigger::kAttemptLost}),
    [](const auto& tested) { return std::string(tested.param.name); });

TEST(RetryTest, CancelRequestWinsOverEveryCause) {
  for (int cause = 1; cause <= 10; ++cause) {
    const RetryVerdict verdict = DecideAfterFailure({},
                                                    {.number = 1,
                                                     .cause = static_cast<FailureCause>(cause),
                                                     .error = absl::InternalError("it broke"),
                                                     .cancel_requested = true},
                                                    0);
    EXPECT_EQ(verdict.trigger, JobTrigger::kCancelled) << cause;
    EXPECT_TRUE(verdict.error.ok());
  }
}

absl::Duration BackoffOf(int attempt, FailureCause cause, double uniform) {
  return DecideAfterFailure(
             {.max_attempts = 100},
             {.number = attempt, .cause = cause, .error = absl::InternalError("it broke")}, uniform)
      .backoff;
}

TEST(RetryTest, BackoffDoublesUpToTheCapWithFullJitter) {
  EXPECT_EQ(BackoffOf(1, FailureCause::kInternal, 0.99), absl::Seconds(1));
  EXPECT_EQ(BackoffOf(2, FailureCause::kInternal, 0), absl::Seconds(1));
  EXPECT_EQ(BackoffOf(2, FailureCause::kInternal, 0.5), absl::Seconds(1.5));
  EXPECT_EQ(BackoffOf(4, FailureCause::kInternal, 0.5), absl::Seconds(4.5));
  EXPECT_EQ(BackoffOf(50, FailureCause::kInternal, 0), absl::Seconds(1));
  EXPECT_EQ(BackoffOf(99, FailureCause::kInternal, 0.5), absl::Seconds(30.5));
}

TEST(RetryTest, InterruptedJobsDoNotWait) {
  EXPECT_EQ(BackoffOf(3, FailureCause::kInterrupted, 0.5), absl::ZeroDuration());
}

TEST(RetryTest, CountsGoUpByCause) {
  EXPECT_EQ(CountFailure({}, FailureCause::kCrash).crashes, 1);
  EXPECT_EQ(CountFailure({}, FailureCause::kHang).crashes, 1);
  EXPECT_EQ(CountFailure({}, FailureCause::kLeaseLost).crashes, 0);
  EXPECT_EQ(CountFailure({}, FailureCause::kOutOfMemory).out_of_memory, 1);
  EXPECT_EQ(CountFailure({}, FailureCause::kInterrupted).interruptions, 1);
  EXPECT_EQ(CountFailure({}, FailureCause::kInterrupted).crashes, 0);
}

}  // namespace
}  // namespace kino::scheduler
