#include "scheduler/queue/job_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>

#include "absl/strings/str_cat.h"
#include "scheduler/random.h"
#include "tests/support/fake_clock.h"
#include "tests/support/seeded_random.h"

namespace kino::scheduler {
namespace {

constexpr absl::Duration kMaxBackoff = absl::Seconds(60);
const absl::Duration kWallSteps[] = {absl::Hours(1), -absl::Hours(1), absl::Hours(24) * 3650,
                                     -absl::Hours(24) * 3650};
const ReadyWorker kWorker{.name = "w", .models = {"ltx", "mochi"}};

class JobQueueTest : public testing::Test {
 protected:
  QueuedJob Make(const std::string& id, int64_t order, Priority priority = Priority::kNormal) {
    return {.id = id, .model = "ltx", .priority = priority, .order = order};
  }
  void Add(const std::string& id, int64_t order, Priority priority = Priority::kNormal) {
    queue_.Add(Make(id, order, priority));
  }
  QueuedJob BackingOff(const std::string& id, int64_t order, absl::Duration backoff) {
    QueuedJob job = Make(id, order);
    job.retry_not_before = clock_.Now() + backoff;
    return job;
  }
  QueuedJob Hurried(const std::string& id, int64_t order, absl::Duration start_timeout) {
    QueuedJob job = Make(id, order);
    job.start_deadline = clock_.Now() + start_timeout;
    return job;
  }
  // The id of the job that `worker` would get.
  std::string Next(const ReadyWorker& worker = kWorker) {
    const QueueSnapshot heads = queue_.Heads({worker});
    const auto choice = PickNext(heads, {worker});
    return choice ? heads.jobs[choice->job].id : "none";
  }
  std::vector<std::string> Order() {
    std::vector<std::string> ids;
    for (const JobQueue::Place& place : queue_.InOrder()) ids.push_back(place.job.id);
    return ids;
  }

  FakeClock clock_;
  JobQueue queue_{clock_, kMaxBackoff};
};

TEST_F(JobQueueTest, EmptyQueueHasNothing) {
  EXPECT_EQ(Next(), "none");
  EXPECT_EQ(queue_.size(), 0);
  EXPECT_FALSE(queue_.Contains("a"));
  EXPECT_TRUE(queue_.TakeOverdue().empty());
  EXPECT_TRUE(queue_.InOrder().empty());
  EXPECT_EQ(queue_.NextTimer(), absl::InfiniteDuration());
  queue_.Remove("a");
  queue_.Hold("a");
  queue_.Unhold("a");
}

TEST_F(JobQueueTest, JobsGoByClassThenByOrderOfSubmission) {
  Add("low", 1, Priority::kLow);
  Add("second", 3);
  Add("first", 2);
  Add("high", 4, Priority::kHigh);
  EXPECT_THAT(Order(), testing::ElementsAre("high", "first", "second", "low"));
  std::vector<std::string> taken;
  while (queue_.size() > 0) {
    taken.push_back(Next());
    queue_.Remove(taken.back());
  }
  EXPECT_THAT(taken, testing::ElementsAre("high", "first", "second", "low"));
}

TEST_F(JobQueueTest, JobsOfHeldTenantsKeepTheirPlacesAndStartLater) {
  const auto add = [&](const std::string& id, int64_t order, const std::string& tenant) {
    QueuedJob job = Make(id, order);
    job.tenant = tenant;
    if (id == "later") job.retry_not_before = clock_.Now() + absl::Seconds(1);
    queue_.Add(job);
  };
  add("a", 1, "greedy");
  add("later", 2, "greedy");
  add("b", 3, "modest");
  queue_.HoldTenants({"greedy"});
  EXPECT_EQ(Next(), "b");
  add("c", 0, "greedy");
  clock_.Advance(absl::Seconds(2));
  EXPECT_EQ(Next(), "b") << "neither a new one nor one whose back-off has ended";
  EXPECT_THAT(Order(), testing::ElementsAre("c", "a", "later", "b"));
  queue_.Remove("a");
  queue_.HoldTenants({"modest"});
  EXPECT_EQ(Next(), "c");
  queue_.Remove("c");
  EXPECT_EQ(Next(), "later");
  queue_.Remove("later");
  EXPECT_EQ(Next(), "none");
  queue_.HoldTenants({});
  EXPECT_EQ(Next(), "b");
  add("later", 4, "greedy");
  queue_.HoldTenants({"greedy"});
  queue_.HoldTenants({});
  queue_.Remove("b");
  EXPECT_EQ(Next(), "none") << "its back-off holds whatever happened to its tenant";
}

// A job that is held is about to run.
TEST_F(JobQueueTest, ATenantThatRunsAsManyJobsAsItMayWaitsForOneToEnd) {
  JobQueue queue(clock_, absl::Minutes(1), /*max_tenant_running=*/2);
  int64_t order = 0;
  const auto add = [&](const std::string& id, const std::string& tenant) {
    QueuedJob job = Make(id, ++order);
    job.tenant = tenant;
    queue.Add(job);
  };
  const auto next = [&] {
    const QueueSnapshot heads = queue.Heads({{.name = "w", .models = {"ltx"}}});
    return heads.jobs.empty() ? "none" : heads.jobs.front().id;
  };
  const auto tell = [&](const std::string& id, JobState state) {
    Change change;
    change.job_id = id;
    change.event.state = state;
    return queue.Apply(change);
  };
  queue.AddRunning("old", "greedy");
  queue.AddRunning("old", "greedy");
  for (const char* id : {"a", "b", "c"}) add(id, "greedy");
  add("d", "modest");
  EXPECT_EQ(next(), "a");
  queue.Hold("a");
  queue.Hold("a");
  EXPECT_EQ(next(), "d");
  EXPECT_EQ(queue.TenantsAtLimit(), std::set<std::string>{"greedy"});
  queue.Unhold("a");
  EXPECT_EQ(next(), "a");
  queue.Hold("a");
  EXPECT_FALSE(tell("a", JobState::kRunning));
  EXPECT_FALSE(tell("a", JobState::kRunning)) << "a cancel that is asked for is a change as well";
  EXPECT_EQ(next(), "d");
  EXPECT_TRUE(tell("old", JobState::kSucceeded));
  EXPECT_FALSE(tell("old", JobState::kSucceeded));
  EXPECT_EQ(next(), "b");
  EXPECT_TRUE(queue.TenantsAtLimit().empty());
  queue.Hold("b");
  EXPECT_EQ(next(), "d");
  // Queued again, or gone from the queue while it was held.
  Change again;
  again.job_id = "a";
  again.queued = Make("a", 1);
  again.queued->tenant = "greedy";
  EXPECT_TRUE(queue.Apply(again));
  EXPECT_EQ(next(), "a");
  EXPECT_FALSE(tell("b", JobState::kCancelled));
  queue.Hold("a");
  EXPECT_EQ(next(), "c");
}

TEST_F(JobQueueTest, CountsEachTenantsJobsAndForgetsWhoHasNone) {
  const auto of = [&](const std::string& id, const std::string& tenant) {
    QueuedJob job = Make(id, 1);
    job.tenant = tenant;
    return job;
  };
  queue_.AddRunning("old", "a");
  queue_.Add(of("first", "a"));
  queue_.Add(of("first", "a"));
  queue_.Add(of("second", "b"));
  queue_.Hold("first");
  EXPECT_EQ(queue_.tenants(),
            (std::map<std::string, TenantJobs>{{"a", {.queued = 1, .held = 1, .running = 1}},
                                               {"b", {.queued = 1, .held = 0, .running = 0}}}));
  Change started;
  started.job_id = "first";
  started.event.state = JobState::kRunning;
  queue_.Apply(started);
  queue_.Remove("second");
  EXPECT_EQ(queue_.tenants(),
            (std::map<std::string, TenantJobs>{{"a", {.queued = 0, .held = 0, .running = 2}}}));
  for (const char* id : {"old", "first"}) {
    Change ended;
    ended.job_id = id;
    ended.event.state = JobState::kSucceeded;
    queue_.Apply(ended);
  }
  EXPECT_TRUE(queue_.tenants().empty());
}

TEST_F(JobQueueTest, ModelsThatTheWorkerLacksArePassedOver) {
  QueuedJob job = Make("foreign", 1, Priority::kHigh);
  job.model = "allegro";
  queue_.Add(job);
  Add("a", 2);
  EXPECT_EQ(Next(), "a");
  EXPECT_EQ(Next({.name = "v", .models = {"mochi"}}), "none");
  EXPECT_EQ(Next({.name = "v", .models = {"allegro"}}), "foreign");
}

TEST_F(JobQueueTest, HeldJobIsOfferedToNobodyAndKeepsItsPlace) {
  Add("a", 1);
  Add("b", 2);
  queue_.Hold("a");
  EXPECT_EQ(Next(), "b");
  EXPECT_THAT(Order(), testing::ElementsAre("a", "b"));
  EXPECT_TRUE(queue_.Contains("a"));
  queue_.Unhold("a");
  EXPECT_EQ(Next(), "a");
}

TEST_F(JobQueueTest, HeldJobDoesNotHideOthersOfItsModelFromAnyWorker) {
  Add("a", 1);
  Add("b", 2);
  Add("c", 3, Priority::kLow);
  queue_.Hold("a");
  const QueueSnapshot heads = queue_.Heads(
      {kWorker,
       {.name = "v", .models = {"ltx"}, .loaded = {}, .attempts = 0, .unfit_jobs = {"b"}}});
  ASSERT_EQ(heads.jobs.size(), 2u);
  EXPECT_EQ(heads.jobs[0].id, "b");
  EXPECT_EQ(heads.jobs[1].id, "c");
}

TEST_F(JobQueueTest, AJobIsToldOnceThoughManyWorkersMayTakeIt) {
  Add("a", 1);
  EXPECT_EQ(queue_.Heads({kWorker, kWorker, kWorker}).jobs.size(), 1u);
}

TEST_F(JobQueueTest, BackoffEndsOnMonotonicTimeWhateverTheWallClockDoes) {
  for (const absl::Duration step : kWallSteps) {
    SCOPED_TRACE(absl::FormatDuration(step));
    queue_.Add(BackingOff("a", 1, absl::Seconds(30)));
    Add("b", 2);
    EXPECT_EQ(queue_.NextTimer(), clock_.Monotonic() + absl::Seconds(30));
    EXPECT_EQ(Next(), "b");
    clock_.JumpWall(step);
    EXPECT_EQ(Next(), "b");
    EXPECT_EQ(queue_.InOrder()[0].backoff_left, absl::Seconds(30));
    clock_.Advance(absl::Seconds(29));
    EXPECT_EQ(Next(), "b");
    EXPECT_EQ(queue_.InOrder()[0].backoff_left, absl::Seconds(1));
    EXPECT_EQ(queue_.InOrder()[1].backoff_left, absl::ZeroDuration());
    clock_.Advance(absl::Seconds(1));
    EXPECT_EQ(Next(), "a") << "it kept its place";
    EXPECT_EQ(queue_.InOrder()[0].backoff_left, absl::ZeroDuration());
    EXPECT_EQ(queue_.NextTimer(), absl::InfiniteDuration());
    queue_.Remove("a");
    queue_.Remove("b");
  }
}

TEST_F(JobQueueTest, BackoffThatHasEndedIsATimerUntilItIsSeen) {
  queue_.Add(BackingOff("a", 1, absl::Seconds(5)));
  clock_.Advance(absl::Seconds(7));
  EXPECT_EQ(queue_.NextTimer(), clock_.Monotonic() - absl::Seconds(2));
  queue_.EndBackoffs();
  EXPECT_EQ(queue_.NextTimer(), absl::InfiniteDuration());
  EXPECT_EQ(Next(), "a");
}

TEST_F(JobQueueTest, BackoffOfAnotherWallClockCountsAsTheLongest) {
  queue_.Add(BackingOff("a", 1, absl::Hours(24) * 3650));
  EXPECT_EQ(queue_.NextTimer(), clock_.Monotonic() + kMaxBackoff);
  clock_.Advance(kMaxBackoff);
  EXPECT_EQ(Next(), "a");
}

TEST_F(JobQueueTest, BackoffThatIsOverIsNone) {
  queue_.Add(BackingOff("a", 1, -absl::Seconds(5)));
  EXPECT_EQ(Next(), "a");
  EXPECT_EQ(queue_.NextTimer(), absl::InfiniteDuration());
}

TEST_F(JobQueueTest, StartTimeoutPassesOnMonotonicTimeWhateverTheWallClockDoes) {
  for (const absl::Duration step : kWallSteps) {
    SCOPED_TRACE(absl::FormatDuration(step));
    queue_.Add(Hurried("a", 1, absl::Seconds(100)));
    EXPECT_EQ(queue_.NextTimer(), clock_.Monotonic() + absl::Seconds(100));
    clock_.JumpWall(step);
    EXPECT_TRUE(queue_.TakeOverdue().empty());
    clock_.Advance(absl::Seconds(99));
    EXPECT_TRUE(queue_.TakeOverdue().empty());
    clock_.Advance(absl::Seconds(1));
    EXPECT_THAT(queue_.TakeOverdue(), testing::ElementsAre("a"));
    queue_.Remove("a");
    EXPECT_EQ(queue_.NextTimer(), absl::InfiniteDuration());
  }
}

TEST_F(JobQueueTest, WhatIsLeftOfStartTimeoutIsCountedOnMonotonicTime) {
  for (const absl::Duration step : kWallSteps) {
    SCOPED_TRACE(absl::FormatDuration(step));
    queue_.Add(Hurried("a", 1, absl::Seconds(100)));
    Add("b", 2);
    clock_.Advance(absl::Seconds(30));
    clock_.JumpWall(step);
    queue_.Hold("a");
    EXPECT_EQ(queue_.StartLeft("a"), absl::Seconds(70));
    EXPECT_EQ(queue_.StartLeft("b"), absl::InfiniteDuration());
    EXPECT_EQ(queue_.StartLeft("nonsense"), absl::InfiniteDuration());
    clock_.Advance(absl::Seconds(70));
    EXPECT_EQ(queue_.StartLeft("a"), absl::ZeroDuration());
    EXPECT_EQ(queue_.TakeOverdue().size(), 1u);
    EXPECT_EQ(queue_.StartLeft("a"), absl::ZeroDuration()) << "to be told again is no time left";
    clock_.Advance(absl::Minutes(5));
    EXPECT_EQ(queue_.StartLeft("a"), absl::ZeroDuration());
    queue_.Remove("a");
    queue_.Remove("b");
  }
}

TEST_F(JobQueueTest, OverdueJobIsToldAgainASecondLaterUntilItIsGone) {
  queue_.Add(Hurried("a", 1, absl::Seconds(5)));
  queue_.Add(Hurried("b", 2, absl::Seconds(5)));
  Add("c", 3);
  clock_.Advance(absl::Seconds(7));
  EXPECT_THAT(queue_.TakeOverdue(), testing::UnorderedElementsAre("a", "b"));
  EXPECT_TRUE(queue_.TakeOverdue().empty());
  EXPECT_EQ(queue_.NextTimer(), clock_.Monotonic() + absl::Seconds(1));
  queue_.Remove("a");
  clock_.Advance(absl::Seconds(1));
  EXPECT_THAT(queue_.TakeOverdue(), testing::ElementsAre("b"));
  clock_.Advance(absl::Hours(1));
  EXPECT_THAT(queue_.TakeOverdue(), testing::ElementsAre("b"));
  queue_.Remove("b");
  EXPECT_EQ(queue_.NextTimer(), absl::InfiniteDuration());
  EXPECT_EQ(Next(), "c");
}

TEST_F(JobQueueTest, HeldJobExpiresToo) {
  queue_.Add(Hurried("a", 1, absl::Seconds(5)));
  queue_.Hold("a");
  clock_.Advance(absl::Seconds(5));
  EXPECT_THAT(queue_.TakeOverdue(), testing::ElementsAre("a"));
}

TEST_F(JobQueueTest, DeadlineThatHasPassedWhenTheJobComesIsTold) {
  queue_.Add(Hurried("a", 1, -absl::Hours(1)));
  EXPECT_THAT(queue_.TakeOverdue(), testing::ElementsAre("a"));
}

TEST_F(JobQueueTest, NextTimerIsTheEarliestOfAll) {
  queue_.Add(Hurried("a", 1, absl::Seconds(50)));
  EXPECT_EQ(queue_.NextTimer(), clock_.Monotonic() + absl::Seconds(50));
  queue_.Add(BackingOff("b", 2, absl::Seconds(20)));
  EXPECT_EQ(queue_.NextTimer(), clock_.Monotonic() + absl::Seconds(20));
  queue_.Add(BackingOff("c", 3, absl::Seconds(10)));
  EXPECT_EQ(queue_.NextTimer(), clock_.Monotonic() + absl::Seconds(10));
  queue_.Remove("c");
  EXPECT_EQ(queue_.NextTimer(), clock_.Monotonic() + absl::Seconds(20));
  queue_.Remove("b");
  EXPECT_EQ(queue_.NextTimer(), clock_.Monotonic() + absl::Seconds(50));
}

TEST_F(JobQueueTest, AddedAgainAJobIsWhatItSaysNow) {
  QueuedJob job = BackingOff("a", 1, absl::Seconds(30));
  job.start_deadline = clock_.Now() + absl::Seconds(40);
  queue_.Add(job);
  queue_.Hold("a");
  job = Make("a", 5, Priority::kHigh);
  job.model = "mochi";
  queue_.Add(job);
  EXPECT_EQ(queue_.size(), 1);
  EXPECT_EQ(Next(), "a") << "neither held nor backing off";
  EXPECT_EQ(Next({.name = "v", .models = {"ltx"}}), "none");
  EXPECT_EQ(queue_.NextTimer(), absl::InfiniteDuration());
  ASSERT_EQ(queue_.InOrder().size(), 1u);
  EXPECT_EQ(queue_.InOrder()[0].job.priority, Priority::kHigh);
  queue_.Add(BackingOff("a", 5, absl::Seconds(3)));
  EXPECT_EQ(Next(), "none");
  EXPECT_EQ(queue_.size(), 1);
}

TEST_F(JobQueueTest, RemovalLeavesNothingBehindInWhateverStateTheJobIs) {
  const std::vector<std::pair<const char*, std::function<void()>>> states = {
      {"ready", [&] { Add("a", 1); }},
      {"held",
       [&] {
         Add("a", 1);
         queue_.Hold("a");
       }},
      {"backing off", [&] { queue_.Add(BackingOff("a", 1, absl::Seconds(5))); }},
      {"back-off over, not looked at",
       [&] {
         queue_.Add(BackingOff("a", 1, absl::Seconds(5)));
         clock_.Advance(absl::Seconds(5));
       }},
      {"back-off over",
       [&] {
         queue_.Add(BackingOff("a", 1, absl::Seconds(5)));
         clock_.Advance(absl::Seconds(5));
         EXPECT_EQ(Next(), "a");
       }},
      {"with a deadline", [&] { queue_.Add(Hurried("a", 1, absl::Seconds(5))); }},
      {"overdue",
       [&] {
         queue_.Add(Hurried("a", 1, absl::Seconds(5)));
         clock_.Advance(absl::Seconds(5));
       }},
      {"told to be overdue", [&] {
         queue_.Add(Hurried("a", 1, absl::Seconds(5)));
         clock_.Advance(absl::Seconds(5));
         EXPECT_EQ(queue_.TakeOverdue().size(), 1u);
       }}};
  for (const auto& [name, enter] : states) {
    SCOPED_TRACE(name);
    enter();
    EXPECT_TRUE(queue_.Contains("a"));
    queue_.Remove("a");
    EXPECT_FALSE(queue_.Contains("a"));
    EXPECT_EQ(queue_.size(), 0);
    EXPECT_TRUE(queue_.InOrder().empty());
    EXPECT_EQ(queue_.NextTimer(), absl::InfiniteDuration());
    clock_.Advance(absl::Minutes(2));
    EXPECT_EQ(Next(), "none");
    EXPECT_TRUE(queue_.TakeOverdue().empty());
  }
}

TEST_F(JobQueueTest, ChangesOfTheStoreKeepItUpToDate) {
  Change change{.cursor = 1, .job_id = "a", .event = {.state = JobState::kQueued}};
  change.queued = Make("a", 1);
  queue_.Apply(change);
  EXPECT_EQ(Next(), "a");
  for (const JobState state : kAllJobStates) {
    if (state == JobState::kQueued) continue;
    SCOPED_TRACE(JobStateName(state));
    queue_.Apply({.cursor = 2, .job_id = "a", .event = {.state = state}});
    EXPECT_FALSE(queue_.Contains("a"));
    queue_.Apply({.cursor = 2, .job_id = "a", .event = {.state = state}});
    queue_.Apply(change);
    EXPECT_TRUE(queue_.Contains("a"));
  }
}

TEST_F(JobQueueTest, PlacesCountEveryJobThatIsBefore) {
  Add("a", 1);
  queue_.Add(BackingOff("b", 2, absl::Seconds(5)));
  QueuedJob foreign = Make("c", 3, Priority::kHigh);
  foreign.model = "allegro";
  queue_.Add(foreign);
  Add("d", 4);
  queue_.Hold("a");
  const auto places = queue_.InOrder();
  ASSERT_EQ(places.size(), 4u);
  EXPECT_THAT(Order(), testing::ElementsAre("c", "a", "b", "d"));
}

// Random queues, looked at in two ways: cut down to their heads, and as a plain list by a simple
// rule. Jobs come, go, are held, back off and become overdue between the looks, and the wall clock
// is set.
TEST(JobQueuePropertyTest, HeadsGiveTheSameChoiceAsTheWholeQueue) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    SeededRandom random(seed);
    const auto below = [&](uint64_t limit) { return random.Next() % limit; };
    FakeClock clock;
    JobQueue queue(clock, kMaxBackoff);
    struct Known {
      QueuedJob job;
      absl::Duration ready_at, deadline;
      bool is_held = false;
    };
    std::map<std::string, Known> model;
    const std::string models[] = {"a", "b", "c", "d"};
    for (int step = 0; step < 400; ++step) {
      const std::string id = std::to_string(below(30));
      switch (below(6)) {
        case 0:
        case 1: {
          Known known;
          known.job = {.id = id,
                       .model = models[below(4)],
                       .priority = static_cast<Priority>(1 + below(3)),
                       .order = step};
          known.ready_at = clock.Monotonic();
          known.deadline = absl::InfiniteDuration();
          if (below(3) == 0) {
            const absl::Duration backoff = absl::Seconds(static_cast<int64_t>(below(60)));
            known.job.retry_not_before = clock.Now() + backoff;
            known.ready_at += backoff;
          }
          if (below(3) == 0) {
            const absl::Duration left = absl::Seconds(static_cast<int64_t>(1 + below(60)));
            known.job.start_deadline = clock.Now() + left;
            known.deadline = clock.Monotonic() + left;
          }
          queue.Add(known.job);
          model[id] = known;
          break;
        }
        case 2:
          queue.Remove(id);
          model.erase(id);
          break;
        case 3: {
          const bool is_held = below(2) == 0;
          is_held ? queue.Hold(id) : queue.Unhold(id);
          if (model.contains(id)) model[id].is_held = is_held;
          break;
        }
        case 4:
          clock.Advance(absl::Seconds(static_cast<int64_t>(below(20))));
          break;
        default:
          clock.JumpWall(kWallSteps[below(4)]);
      }
      std::vector<ReadyWorker> workers;
      for (uint64_t w = below(4); w > 0; --w) {
        ReadyWorker& worker = workers.emplace_back();
        worker.name = std::to_string(w);
        worker.attempts = static_cast<int>(below(3));
        for (const std::string& name : models) {
          if (below(2) == 0) worker.models.insert(name);
          if (below(3) == 0) worker.loaded.insert(name);
        }
        for (int i = 0; i < 30; ++i) {
          if (below(3) == 0) worker.unfit_jobs.insert(std::to_string(i));
        }
      }
      QueueSnapshot whole;
      std::vector<std::string> overdue;
      absl::Duration timer = absl::InfiniteDuration();
      for (auto& [name, known] : model) {
        const bool is_ready = known.ready_at <= clock.Monotonic();
        if (is_ready && !known.is_held) whole.jobs.push_back(known.job);
        if (known.deadline <= clock.Monotonic()) {
          overdue.push_back(name);
          known.deadline = clock.Monotonic() + absl::Seconds(1);
        }
        timer = std::min(timer, known.deadline);
        if (!is_ready) timer = std::min(timer, known.ready_at);
      }
      const QueueSnapshot heads = queue.Heads(workers);
      const auto name_choice = [&](const QueueSnapshot& snapshot) {
        const auto choice = PickNext(snapshot, workers);
        return choice ? absl::StrCat(snapshot.jobs[choice->job].id, " on ",
                                     workers[choice->worker].name)
                      : std::string("none");
      };
      ASSERT_EQ(name_choice(heads), name_choice(whole)) << "step " << step;
      ASSERT_LE(heads.jobs.size(), 4 * workers.size());
      ASSERT_THAT(queue.TakeOverdue(), testing::UnorderedElementsAreArray(overdue))
          << "step " << step;
      ASSERT_EQ(queue.NextTimer(), timer) << "step " << step;
      ASSERT_EQ(queue.size(), static_cast<int64_t>(model.size()));
      // The order of the snapshot means nothing.
      std::reverse(whole.jobs.begin(), whole.jobs.end());
      ASSERT_EQ(name_choice(heads), name_choice(whole)) << "step " << step;
    }
    const auto places = queue.InOrder();
    ASSERT_EQ(places.size(), model.size());
    for (size_t i = 1; i < places.size(); ++i) {
      const QueuedJob &a = places[i - 1].job, &b = places[i].job;
      EXPECT_TRUE(a.priority > b.priority || (a.priority == b.priority && a.order < b.order));
    }
  }
}

// Slow would be minutes: each step looks at the heads only.
TEST(JobQueueScaleTest, AHundredThousandJobsComeAndGo) {
  constexpr int kJobs = 100'000;
  FakeClock clock;
  JobQueue queue(clock, kMaxBackoff);
  for (int i = 0; i < kJobs; ++i) {
    QueuedJob job{.id = std::to_string(i),
                  .model = absl::StrCat("m", i % 7),
                  .priority = static_cast<Priority>(1 + i % 3),
                  .order = i};
    if (i % 5 == 0) job.retry_not_before = clock.Now() + absl::Milliseconds(i % 50'000);
    if (i % 4 == 0) job.start_deadline = clock.Now() + absl::Hours(1) + absl::Milliseconds(i);
    queue.Add(job);
  }
  EXPECT_EQ(queue.size(), kJobs);
  EXPECT_EQ(queue.InOrder().size(), static_cast<size_t>(kJobs));
  clock.Advance(absl::Seconds(50));
  std::vector<ReadyWorker> workers(3);
  for (int i = 0; i < 7; ++i) {
    for (ReadyWorker& worker : workers) worker.models.insert(absl::StrCat("m", i));
  }
  int taken = 0;
  for (; taken < kJobs / 2; ++taken) {
    const QueueSnapshot heads = queue.Heads(workers);
    ASSERT_LE(heads.jobs.size(), 7u);
    const auto choice = PickNext(heads, workers);
    ASSERT_TRUE(choice);
    queue.Hold(heads.jobs[choice->job].id);
    queue.Remove(heads.jobs[choice->job].id);
  }
  clock.Advance(absl::Hours(2));
  for (const std::string& id : queue.TakeOverdue()) queue.Remove(id);
  EXPECT_TRUE(queue.TakeOverdue().empty());
  EXPECT_GT(queue.size(), 0);
  EXPECT_EQ(queue.NextTimer(), absl::InfiniteDuration());
}

}  // namespace
}  // namespace kino::scheduler
