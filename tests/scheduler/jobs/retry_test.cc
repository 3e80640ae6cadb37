#include "scheduler/jobs/retry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <vector>

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
        Case{"InterruptionsHaveNoLimit",
             FailureCause::kInterrupted,
             1000,
             {.interruptions = 1000},
             JobTrigger::kAttemptLost},
        Case{"FullDisksHaveNoLimit",
             FailureCause::kDiskFull,
             1000,
             {.interruptions = 1000},
             JobTrigger::kAttemptLost},
        Case{"FirstLostDeviceRunsAgain",
             FailureCause::kDeviceLost,
             1,
             {.crashes = 1},
             JobTrigger::kAttemptLost},
        Case{"LostDeviceCountsAsCrash",
             FailureCause::kDeviceLost,
             2,
             {.crashes = 2},
             JobTrigger::kQuarantined},
        Case{"SecondUncleanStopRunsAgain",
             FailureCause::kUncleanStop,
             2,
             {.interruptions = 2, .unclean_stops = 2},
             JobTrigger::kAttemptLost},
        Case{"ThirdUncleanStopQuarantines",
             FailureCause::kUncleanStop,
             3,
             {.interruptions = 3, .unclean_stops = 3},
             JobTrigger::kQuarantined},
        Case{"UncleanStopsDoNotUseUpAttempts",
             FailureCause::kInternal,
             5,
             {.interruptions = 2, .unclean_stops = 2},
             JobTrigger::kAttemptLost},
        Case{"UncleanStopsAreNoCrashes",
             FailureCause::kCrash,
             3,
             {.crashes = 1, .interruptions = 2, .unclean_stops = 2},
             JobTrigger::kAttemptLost},
        Case{"CrashesAreNoUncleanStops",
             FailureCause::kUncleanStop,
             2,
             {.crashes = 1, .interruptions = 1, .unclean_stops = 1},
             JobTrigger::kAttemptLost},
        Case{"InterruptionAfterCrashIsNoCrash",
             FailureCause::kInterrupted,
             2,
             {.crashes = 1, .interruptions = 1},
             JobTrigger::kAttemptLost}),
    [](const auto& tested) { return std::string(tested.param.name); });

TEST(RetryTest, CancelRequestWinsOverEveryCause) {
  for (int cause = 1; cause <= 13; ++cause) {
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
  for (const FailureCause cause :
       {FailureCause::kInterrupted, FailureCause::kDiskFull, FailureCause::kUncleanStop}) {
    EXPECT_EQ(BackoffOf(3, cause, 0.5), absl::ZeroDuration()) << FailureCauseName(cause);
  }
  EXPECT_EQ(BackoffOf(2, FailureCause::kDeviceLost, 0.5), absl::Seconds(1.5)) << "as after a crash";
}

TEST(RetryTest, BackoffGrowsWithFailuresThatCount) {
  const auto backoff = [](int attempt, int interruptions) {
    return DecideAfterFailure({.max_attempts = 100},
                              {.number = attempt,
                               .cause = FailureCause::kInternal,
                               .error = absl::InternalError("it broke"),
                               .failures = {.interruptions = interruptions}},
                              0.5)
        .backoff;
  };
  EXPECT_EQ(backoff(12, 10), absl::Seconds(1.5));
  EXPECT_EQ(backoff(12, 0), absl::Seconds(30.5));
}

TEST(RetryTest, CountsGoUpByCause) {
  // crashes, out_of_memory, interruptions, unclean_stops
  const std::map<FailureCause, std::vector<int>> want = {
      {FailureCause::kClient, {0, 0, 0, 0}},      {FailureCause::kOutOfMemory, {0, 1, 0, 0}},
      {FailureCause::kModel, {0, 0, 0, 0}},       {FailureCause::kInternal, {0, 0, 0, 0}},
      {FailureCause::kInterrupted, {0, 0, 1, 0}}, {FailureCause::kCrash, {1, 0, 0, 0}},
      {FailureCause::kHang, {1, 0, 0, 0}},        {FailureCause::kLeaseLost, {0, 0, 0, 0}},
      {FailureCause::kCancelled, {0, 0, 0, 0}},   {FailureCause::kRunTimeout, {0, 0, 0, 0}},
      {FailureCause::kDiskFull, {0, 0, 1, 0}},    {FailureCause::kDeviceLost, {1, 0, 0, 0}},
      {FailureCause::kUncleanStop, {0, 0, 1, 1}}};
  for (const auto& [cause, counts] : want) {
    const FailureCounts got = CountFailure({}, cause);
    EXPECT_EQ(
        (std::vector<int>{got.crashes, got.out_of_memory, got.interruptions, got.unclean_stops}),
        counts)
        << FailureCauseName(cause);
    const FailureCounts more = CountFailure(CountFailure({5, 6, 7, 8}, cause), cause);
    EXPECT_EQ(more.crashes, 5 + 2 * counts[0]) << FailureCauseName(cause);
    EXPECT_EQ(more.interruptions, 7 + 2 * counts[2]) << FailureCauseName(cause);
    EXPECT_STRNE(FailureCauseName(cause), "UNKNOWN");
  }
}

}  // namespace
}  // namespace kino::scheduler
