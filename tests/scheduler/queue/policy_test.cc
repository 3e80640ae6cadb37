#include "scheduler/queue/policy.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "scheduler/random.h"
#include "tests/support/seeded_random.h"

namespace kino::scheduler {
namespace {

std::string Pick(const QueueSnapshot& queue, const ReadyWorker& worker) {
  const auto picked = PickNext(queue, worker);
  return picked ? queue.jobs[*picked].id : "none";
}

TEST(PolicyTest, EmptyQueueGivesNothing) {
  EXPECT_EQ(Pick({}, {.name = "w", .models = {"ltx"}}), "none");
}

TEST(PolicyTest, FirstInIsFirstOutWithinAClass) {
  const QueueSnapshot queue{{{"b", "ltx", Priority::kNormal, 2},
                             {"a", "ltx", Priority::kNormal, 1},
                             {"c", "ltx", Priority::kNormal, 3}}};
  EXPECT_EQ(Pick(queue, {.name = "w", .models = {"ltx"}}), "a");
}

TEST(PolicyTest, HigherClassGoesFirst) {
  const QueueSnapshot queue{{{"low", "ltx", Priority::kLow, 1},
                             {"normal", "ltx", Priority::kNormal, 2},
                             {"high", "ltx", Priority::kHigh, 3}}};
  EXPECT_EQ(Pick(queue, {.name = "w", .models = {"ltx"}}), "high");
}

TEST(PolicyTest, JobsOfModelsTheWorkerLacksArePassedOver) {
  const QueueSnapshot queue{{{"a", "mochi", Priority::kHigh, 1}, {"b", "ltx", Priority::kLow, 2}}};
  EXPECT_EQ(Pick(queue, {.name = "w", .models = {"ltx", "allegro"}}), "b");
  EXPECT_EQ(Pick(queue, {.name = "w", .models = {}}), "none");
}

TEST(PolicyTest, OrderOfTheSnapshotAndCuttingItToHeadsDoNotMatter) {
  constexpr uint64_t kSeed = 20;
  SCOPED_TRACE(kSeed);
  SeededRandom random(kSeed);
  const std::vector<std::string> models = {"a", "b", "c"};
  for (int round = 0; round < 500; ++round) {
    QueueSnapshot queue;
    const uint64_t size = random.Next() % 12;
    for (uint64_t i = 0; i < size; ++i) {
      queue.jobs.push_back({.id = std::to_string(i),
                            .model = models[random.Next() % 3],
                            .priority = static_cast<Priority>(1 + random.Next() % 3),
                            .order = static_cast<int64_t>(i)});
    }
    const ReadyWorker worker{.name = "w", .models = {models[random.Next() % 3], "a"}};
    const std::string want = Pick(queue, worker);

    QueueSnapshot heads;
    for (const QueuedJob& job : queue.jobs) {
      const bool has_head =
          std::any_of(heads.jobs.begin(), heads.jobs.end(), [&](const QueuedJob& head) {
            return head.model == job.model && head.priority == job.priority;
          });
      if (!has_head) heads.jobs.push_back(job);
    }
    std::reverse(heads.jobs.begin(), heads.jobs.end());
    EXPECT_EQ(Pick(heads, worker), want);
    std::reverse(queue.jobs.begin(), queue.jobs.end());
    EXPECT_EQ(Pick(queue, worker), want);
  }
}

}  // namespace
}  // namespace kino::scheduler
