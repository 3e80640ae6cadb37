#include "scheduler/queue/policy.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace kino::scheduler {
namespace {

// "job on worker", or "none".
std::string Pick(const QueueSnapshot& queue, const std::vector<ReadyWorker>& workers) {
  const auto choice = PickNext(queue, workers);
  if (!choice) return "none";
  return queue.jobs.at(choice->job).id + " on " + workers.at(choice->worker).name;
}

const ReadyWorker kLtx{.name = "w", .models = {"ltx"}};

TEST(PolicyTest, NothingComesFromNothing) {
  EXPECT_EQ(Pick({}, {kLtx}), "none");
  EXPECT_EQ(Pick({{{"a", "ltx", Priority::kNormal, 1}}}, {}), "none");
  EXPECT_EQ(Pick({}, {}), "none");
}

TEST(PolicyTest, FirstInIsFirstOutWithinAClass) {
  const QueueSnapshot queue{{{"b", "ltx", Priority::kNormal, 2},
                             {"a", "ltx", Priority::kNormal, 1},
                             {"c", "ltx", Priority::kNormal, 3}}};
  EXPECT_EQ(Pick(queue, {kLtx}), "a on w");
}

TEST(PolicyTest, HigherClassGoesFirst) {
  const QueueSnapshot queue{{{"low", "ltx", Priority::kLow, 1},
                             {"normal", "ltx", Priority::kNormal, 2},
                             {"high", "ltx", Priority::kHigh, 3}}};
  EXPECT_EQ(Pick(queue, {kLtx}), "high on w");
}

TEST(PolicyTest, JobsOfModelsNobodyServesArePassedOver) {
  const QueueSnapshot queue{{{"a", "mochi", Priority::kHigh, 1}, {"b", "ltx", Priority::kLow, 2}}};
  EXPECT_EQ(Pick(queue, {{.name = "w", .models = {"ltx", "allegro"}}}), "b on w");
  EXPECT_EQ(Pick(queue, {{.name = "w", .models = {}}}), "none");
  EXPECT_EQ(Pick(queue, {kLtx, {.name = "v", .models = {"mochi"}}}), "a on v");
}

TEST(PolicyTest, ServedModelNeedNotBeLoadedAndALoadedOneIsNotServedForThat) {
  const QueueSnapshot queue{{{"a", "ltx", Priority::kNormal, 1}}};
  EXPECT_EQ(Pick(queue, {kLtx}), "a on w");
  EXPECT_EQ(Pick(queue, {{.name = "v", .models = {"mochi"}, .loaded = {"ltx"}}}), "none");
}

TEST(PolicyTest, WorkerThatHoldsTheModelComesFirstThoughItHasMoreToDo) {
  const QueueSnapshot queue{{{"a", "ltx", Priority::kNormal, 1}}};
  const ReadyWorker warm{.name = "z", .models = {"ltx", "mochi"}, .loaded = {"ltx"}, .attempts = 3};
  const ReadyWorker other{
      .name = "a", .models = {"ltx", "mochi"}, .loaded = {"mochi"}, .attempts = 0};
  EXPECT_EQ(Pick(queue, {other, warm}), "a on z");
  EXPECT_EQ(Pick(queue, {warm, other}), "a on z");
}

TEST(PolicyTest, AmongEqualsTheIdlestThenTheFirstByNameGetsIt) {
  const QueueSnapshot queue{{{"a", "ltx", Priority::kNormal, 1}}};
  const auto worker = [](const char* name, int attempts) {
    return ReadyWorker{.name = name, .models = {"ltx"}, .loaded = {"ltx"}, .attempts = attempts};
  };
  EXPECT_EQ(Pick(queue, {worker("a", 2), worker("c", 1), worker("b", 1)}), "a on b");
  EXPECT_EQ(Pick(queue, {worker("b", 1), worker("a", 1), worker("c", 0)}), "a on c");
}

TEST(PolicyTest, LoadedModelDoesNotLetAJobOvertake) {
  const QueueSnapshot queue{
      {{"first", "mochi", Priority::kNormal, 1}, {"second", "ltx", Priority::kNormal, 2}}};
  EXPECT_EQ(Pick(queue, {{.name = "w", .models = {"ltx", "mochi"}, .loaded = {"ltx"}}}),
            "first on w");
}

TEST(PolicyTest, UnfitJobGoesToAnotherWorkerOrHoldsUpNobody) {
  const QueueSnapshot queue{
      {{"big", "ltx", Priority::kHigh, 1}, {"small", "ltx", Priority::kNormal, 2}}};
  const ReadyWorker narrow{
      .name = "a", .models = {"ltx"}, .loaded = {"ltx"}, .unfit_jobs = {"big"}};
  EXPECT_EQ(Pick(queue, {narrow}), "small on a");
  EXPECT_EQ(Pick(queue, {narrow, {.name = "b", .models = {"ltx"}, .attempts = 5}}), "big on b");
  EXPECT_EQ(Pick(queue, {{.name = "a", .models = {"ltx"}, .unfit_jobs = {"big", "small"}}}),
            "none");
}

TEST(PolicyTest, WhoMayTakeWhat) {
  const QueuedJob job{.id = "a", .model = "ltx"};
  EXPECT_TRUE(MayTake(kLtx, job));
  EXPECT_FALSE(MayTake({.name = "w", .models = {"mochi"}}, job));
  EXPECT_FALSE(MayTake({.name = "w", .models = {"ltx"}, .unfit_jobs = {"a"}}, job));
  EXPECT_TRUE(MayTake({.name = "w", .models = {"ltx"}, .unfit_jobs = {"b"}}, job));
}

}  // namespace
}  // namespace kino::scheduler
