#include "scheduler/queue/run_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace kino::scheduler {
namespace {

constexpr int kStageEncode = 2;
constexpr int kStageDecode = 6;

FinishedRun MakeRun(const std::string& shape, int steps, double step_seconds, double flops = 0) {
  FinishedRun run;
  run.model = "ltx";
  run.work.shape = shape;
  run.work.steps = steps;
  run.work.flops = flops;
  run.setting = "plan on a device";
  const auto add = [&](int stage, double seconds, int timed = 0, double usual = 0) {
    run.stages.push_back({.stage = stage,
                          .time = absl::Seconds(seconds),
                          .steps = timed,
                          .usual_step = absl::Seconds(usual)});
  };
  add(kStageLoad, 30);
  add(kStageEncode, 2);
  add(kStageDenoise, steps * step_seconds, steps, step_seconds);
  add(kStageDecode, 8, 4, 2);
  return run;
}

TEST(RunHistoryTest, NothingIsKnownWithoutARun) {
  const RunHistory history;
  EXPECT_EQ(history.RunTime("ltx", {.shape = "a", .steps = 20, .flops = 1e12}), std::nullopt);
  EXPECT_EQ(history.LoadTime("ltx"), absl::ZeroDuration());
  EXPECT_TRUE(history.StepsOf("ltx", "a", "plan on a device").empty());
}

TEST(RunHistoryTest, RunTimeIsStepsAndWhatIsBesideThemButNotLoading) {
  RunHistory history;
  history.Learn(MakeRun("a", 20, 3));
  EXPECT_EQ(history.RunTime("ltx", {.shape = "a", .steps = 20}), absl::Seconds(70));
  EXPECT_EQ(history.RunTime("ltx", {.shape = "a", .steps = 50}), absl::Seconds(160));
  EXPECT_EQ(history.LoadTime("ltx"), absl::Seconds(30));
  EXPECT_EQ(history.RunTime("ltx", {.shape = "b", .steps = 20}), std::nullopt);
  EXPECT_EQ(history.RunTime("mochi", {.shape = "a", .steps = 20}), std::nullopt);
}

TEST(RunHistoryTest, LatestRunCountsForAThird) {
  RunHistory history;
  history.Learn(MakeRun("a", 10, 3));
  history.Learn(MakeRun("a", 10, 6));
  EXPECT_EQ(history.RunTime("ltx", {.shape = "a", .steps = 10}), absl::Seconds(10 + 10 * 4));
}

TEST(RunHistoryTest, OtherShapesGoByTheirOperationsAtTheRateOfTheirModel) {
  RunHistory history;
  history.Learn(MakeRun("a", 10, 3, 80e12));        // 2e12 a second
  FinishedRun other = MakeRun("a", 10, 3, 400e12);  // 10e12 a second
  other.model = "mochi";
  history.Learn(other);
  EXPECT_EQ(history.RunTime("ltx", {.shape = "b", .steps = 1, .flops = 20e12}), absl::Seconds(10));
  EXPECT_EQ(history.RunTime("mochi", {.shape = "b", .steps = 1, .flops = 20e12}), absl::Seconds(2));
  // One that has never run goes by all runs, a third of which is the latest.
  EXPECT_NEAR(
      absl::ToDoubleSeconds(*history.RunTime("new", {.shape = "b", .steps = 1, .flops = 20e12})),
      20e12 / (2e12 + (10e12 - 2e12) / 3), 1e-6);
  EXPECT_EQ(history.RunTime("new", {.shape = "b", .steps = 1}), std::nullopt);
  EXPECT_EQ(history.RunTime("ltx", {.shape = "a", .steps = 10, .flops = 1}), absl::Seconds(40))
      << "its own shape is better known";
  EXPECT_EQ(history.RunTime("ltx", {}), std::nullopt) << "a job of an older server";
}

TEST(RunHistoryTest, StepsAreCountedOverRunsOfOneSettingOnly) {
  RunHistory history;
  history.Learn(MakeRun("a", 2, 3));
  history.Learn(MakeRun("a", 2, 5));
  FinishedRun other = MakeRun("a", 7, 11);
  other.setting = "another plan";
  history.Learn(other);
  const UsualSteps steps = history.StepsOf("ltx", "a", "plan on a device");
  EXPECT_EQ(steps.at(kStageDenoise).steps, 4);
  EXPECT_EQ(steps.at(kStageDenoise).time, absl::Seconds(5)) << "the latest";
  EXPECT_EQ(steps.at(kStageDecode).steps, 8);
  EXPECT_FALSE(steps.contains(kStageEncode)) << "it has no steps";
  EXPECT_EQ(history.StepsOf("ltx", "a", "another plan").at(kStageDenoise).steps, 7);
  EXPECT_TRUE(history.StepsOf("ltx", "b", "plan on a device").empty());
}

TEST(RunHistoryTest, RunLearntFromLongestAgoIsForgotten) {
  RunHistory history;
  history.Learn(MakeRun("first", 2, 3));
  history.Learn(MakeRun("second", 2, 3));
  history.Learn(MakeRun("first", 2, 3));
  for (size_t i = 0; i < kMaxRememberedRuns - 1; ++i) history.Learn(MakeRun(absl::StrCat(i), 2, 3));
  EXPECT_TRUE(history.RunTime("ltx", {.shape = "first", .steps = 2}));
  EXPECT_FALSE(history.RunTime("ltx", {.shape = "second", .steps = 2}));
  EXPECT_FALSE(history.StepsOf("ltx", "first", "plan on a device").empty());
  EXPECT_TRUE(history.StepsOf("ltx", "second", "plan on a device").empty());
}

}  // namespace
}  // namespace kino::scheduler
