// Where queued jobs stand, and what it costs to tell.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "scheduler/store/sqlite/open.h"
#include "server/frontend/watch/hub.h"
#include "server/frontend/watch/queue_view.h"
#include "tests/support/fake_clock.h"
#include "tests/support/seeded_random.h"
#include "tests/support/temp_dir.h"

namespace kino::frontend {
namespace {

using scheduler::Priority;

const absl::Time kNow = absl::FromUnixSeconds(1'000'000);

scheduler::QueuedJob Entry(const std::string& id, const std::string& model = "m") {
  return {.id = id, .model = model, .priority = Priority::kNormal};
}

QueueFacts Facts(std::vector<scheduler::QueuedJob> queue, std::vector<QueueWorker> workers) {
  return {.queue = std::move(queue),
          .workers = std::move(workers),
          .held_because = "",
          .waits_for_memory = nullptr,
          .now = kNow};
}

std::string Told(const QueueSnapshot& snapshot, const std::string& id) {
  const Standing* const standing = snapshot.Find(id);
  return standing == nullptr ? "-" : absl::StrCat(standing->position, " ", standing->reason);
}

TEST(QueueSnapshotTest, PositionCountsWhatTheModelsOwnWorkersStartFirst) {
  // x and y share a worker, y and z another one; nobody serves w.
  const QueueSnapshot snapshot(
      Facts({Entry("z1", "z"), Entry("x1", "x"), Entry("w1", "w"), Entry("y1", "y"),
             Entry("x2", "x"), Entry("z2", "z"), Entry("w2", "w")},
            {{.models = {"x", "y"}, .is_free = false}, {.models = {"y", "z"}, .is_free = false}}));
  EXPECT_EQ(Told(snapshot, "z1"), "0 WORKERS_BUSY");
  EXPECT_EQ(Told(snapshot, "x1"), "0 WORKERS_BUSY");
  EXPECT_EQ(Told(snapshot, "y1"), "2 AHEAD");
  EXPECT_EQ(Told(snapshot, "x2"), "2 AHEAD");
  EXPECT_EQ(Told(snapshot, "z2"), "2 AHEAD");
  EXPECT_EQ(Told(snapshot, "w1"), "0 NO_WORKER");
  EXPECT_EQ(Told(snapshot, "w2"), "1 NO_WORKER");
  EXPECT_EQ(Told(snapshot, "other"), "-");
}

TEST(QueueSnapshotTest, FirstJobOfAFreeWorkerWaitsForNothing) {
  const QueueSnapshot snapshot(
      Facts({Entry("a"), Entry("b")},
            {{.models = {"m"}, .is_free = false}, {.models = {"m"}, .is_free = true}}));
  EXPECT_EQ(Told(snapshot, "a"), "0 ");
  EXPECT_EQ(Told(snapshot, "b"), "1 AHEAD");
}

// Of model "m": ten steps of a second each, five seconds beside them, two to load it.
std::unique_ptr<scheduler::RunHistory> KnownRuns() {
  scheduler::FinishedRun run;
  run.model = std::string("m");  // GCC 12 misreads short literals here
  run.work.shape = std::string("s");
  run.work.steps = 10;
  for (const auto& [stage, seconds] :
       {std::pair{scheduler::kStageLoad, 2}, std::pair{scheduler::kStageDenoise, 10},
        std::pair{scheduler::kStageDenoise + 2, 5}}) {
    run.stages.push_back({.stage = stage, .time = absl::Seconds(seconds)});
  }
  auto history = std::make_unique<scheduler::RunHistory>();
  history->Learn(run);
  return history;
}
scheduler::QueuedJob Known(const std::string& id, int steps = 10) {
  scheduler::QueuedJob job = Entry(id);
  job.work = {.shape = "s", .steps = steps};
  return job;
}
// "start..end" in seconds from now; "?": not known.
std::string Times(const QueueSnapshot& snapshot, const std::string& id) {
  const Standing& standing = *snapshot.Find(id);
  const auto text = [](absl::Time time) {
    return time == absl::InfiniteFuture() ? "?" : absl::StrCat(absl::ToInt64Seconds(time - kNow));
  };
  return absl::StrCat(text(standing.start), "..", text(standing.end));
}

TEST(QueueSnapshotTest, JobsAreForeseenOneAfterTheOtherOnTheWorkerThatIsFreeFirst) {
  const auto history = KnownRuns();
  QueueFacts facts = Facts({Known("a"), Known("b", 20), Known("c"), Known("d")},
                           {{.name = "v", .models = {"m"}, .loaded = {"m"}, .is_free = true},
                            {.name = "w", .models = {"m"}, .is_free = false}});
  facts.busy = {{"w", absl::Seconds(4)}};
  facts.history = history.get();
  const QueueSnapshot snapshot(facts);
  EXPECT_TRUE(snapshot.has_estimates());
  EXPECT_EQ(Times(snapshot, "a"), "0..15");
  EXPECT_EQ(Times(snapshot, "b"), "4..31") << "its worker has to load the model";
  EXPECT_EQ(Times(snapshot, "c"), "15..30");
  EXPECT_EQ(Times(snapshot, "d"), "30..45");
  EXPECT_EQ(Told(snapshot, "b"), "1 AHEAD");
  // What is not known of one run hides what waits for it, and nothing else.
  facts.queue = {Entry("a"), Known("b"), Known("c")};
  const QueueSnapshot unknown(facts);
  EXPECT_EQ(Times(unknown, "a"), "0..?");
  EXPECT_EQ(Times(unknown, "b"), "4..21");
  EXPECT_EQ(Times(unknown, "c"), "21..36");
  facts.busy["w"] = absl::InfiniteDuration();
  EXPECT_EQ(Times(QueueSnapshot(facts), "b"), "?..?");
}

TEST(QueueSnapshotTest, JobThatCannotStartIsNotForeseenAndBarsNobody) {
  const auto history = KnownRuns();
  QueueFacts facts =
      Facts({Known("held"), Known("large"), Known("pausing"), Known("a"), Known("b")},
            {{.name = "w", .models = {"m"}, .loaded = {"m"}, .is_free = true}});
  facts.history = history.get();
  facts.queue[0].tenant = "greedy";
  facts.held_tenants = {{"greedy", kWaitsForTenantsDisk}};
  facts.waits_for_memory = [](const std::string& id) { return id == "large"; };
  facts.queue[2].retry_not_before = kNow + absl::Seconds(3);
  const QueueSnapshot snapshot(facts);
  EXPECT_EQ(Told(snapshot, "held"), "0 TENANT_DISK_FULL");
  EXPECT_EQ(Times(snapshot, "held"), "?..?");
  EXPECT_EQ(Told(snapshot, "large"), "1 NO_MEMORY");
  EXPECT_EQ(Times(snapshot, "large"), "?..?");
  EXPECT_EQ(Told(snapshot, "pausing"), "2 BACK_OFF");
  EXPECT_EQ(Times(snapshot, "pausing"), "3..18");
  EXPECT_EQ(Times(snapshot, "a"), "0..15");
  EXPECT_EQ(Times(snapshot, "b"), "15..30");
  facts.held_because = kWaitsForDisk;
  EXPECT_EQ(Times(QueueSnapshot(facts), "a"), "?..?");
  EXPECT_FALSE(QueueSnapshot(facts).has_estimates());
}

TEST(StandingTest, EstimatesThatMoveLittleTellTheSame) {
  const Standing before{.position = 1,
                        .reason = kWaitsForOthers,
                        .start = kNow + absl::Seconds(50),
                        .end = kNow + absl::Seconds(100),
                        .as_of = kNow};
  const auto moved = [&](double start, double end) {
    Standing now = before;
    now.start += absl::Seconds(start);
    now.end += absl::Seconds(end);
    return now;
  };
  EXPECT_TRUE(TellsTheSame(before, before));
  EXPECT_TRUE(TellsTheSame(before, moved(4, 9)));
  EXPECT_FALSE(TellsTheSame(before, moved(6, 9)));
  EXPECT_FALSE(TellsTheSame(before, moved(4, -13)));
  Standing later = moved(-49, -95);
  later.as_of += absl::Seconds(1);
  EXPECT_FALSE(TellsTheSame(before, later));
  Standing soon = before;
  soon.start = kNow + absl::Milliseconds(500);
  soon.end = kNow + absl::Seconds(3);
  Standing sooner = soon;
  sooner.end -= absl::Milliseconds(1900);
  EXPECT_TRUE(TellsTheSame(soon, sooner)) << "less than two seconds";
  for (const auto change : {&Standing::start, &Standing::end, &Standing::until}) {
    Standing other = before;
    other.*change = other.*change == absl::InfiniteFuture() ? kNow : absl::InfiniteFuture();
    EXPECT_FALSE(TellsTheSame(before, other));
    EXPECT_FALSE(TellsTheSame(other, before));
  }
  Standing ahead = before;
  ahead.position = 0;
  EXPECT_FALSE(TellsTheSame(before, ahead));
  Standing reason = before;
  reason.reason = kWaitsForSlot;
  EXPECT_FALSE(TellsTheSame(before, reason));
}

TEST(QueueSnapshotTest, WhatAnOperatorHasToMendIsToldFirst) {
  std::vector<scheduler::QueuedJob> queue = {Entry("served"), Entry("unserved", "other"),
                                             Entry("later")};
  queue[0].retry_not_before = kNow + absl::Seconds(5);
  QueueFacts facts = Facts(queue, {{.models = {"m"}, .is_free = true}});
  facts.held_because = kWaitsForDisk;
  facts.waits_for_memory = [](const std::string&) { return true; };
  const QueueSnapshot held(facts);
  EXPECT_EQ(Told(held, "served"), "0 DISK_FULL");
  EXPECT_EQ(held.Find("served")->until, absl::InfiniteFuture());
  EXPECT_EQ(Told(held, "unserved"), "0 NO_WORKER");
  facts.held_because = "";
  const QueueSnapshot free(facts);
  EXPECT_EQ(Told(free, "served"), "0 BACK_OFF");
  EXPECT_EQ(free.Find("served")->until, kNow + absl::Seconds(5));
  EXPECT_EQ(free.next_change(), kNow + absl::Seconds(5));
  EXPECT_EQ(Told(free, "unserved"), "0 NO_WORKER");
  EXPECT_EQ(Told(free, "later"), "1 NO_MEMORY");
}

TEST(QueueSnapshotTest, WorkerWhoseDeviceIsOutTakesNothingAndIsToldOf) {
  const auto history = KnownRuns();
  QueueFacts facts =
      Facts({Known("a"), Known("b")},
            {{.name = "out", .models = {"m"}, .loaded = {"m"}, .is_free = true, .is_out = true}});
  facts.history = history.get();
  const QueueSnapshot waits(facts);
  EXPECT_EQ(Told(waits, "a"), "0 DEVICE_OUT");
  EXPECT_EQ(Times(waits, "a"), "?..?");
  facts.workers.push_back({.name = "up", .models = {"m"}, .loaded = {"m"}, .is_free = true});
  const QueueSnapshot served(facts);
  EXPECT_EQ(Told(served, "a"), "0 ");
  EXPECT_EQ(Times(served, "b"), "15..30") << "there is one worker that takes it";
}

TEST(QueueSnapshotTest, BackOffThatIsOverHoldsNothing) {
  std::vector<scheduler::QueuedJob> queue = {Entry("a")};
  queue[0].retry_not_before = kNow;
  const QueueSnapshot snapshot(Facts(queue, {{.models = {"m"}, .is_free = true}}));
  EXPECT_EQ(Told(snapshot, "a"), "0 ");
  EXPECT_EQ(snapshot.next_change(), absl::InfiniteFuture());
}

TEST(QueueSnapshotTest, NewcomerStandsBehindAllOfItsClassAndThoseAbove) {
  std::vector<scheduler::QueuedJob> queue = {Entry("high"), Entry("normal"), Entry("n2", "n"),
                                             Entry("low")};
  queue[0].priority = Priority::kHigh;
  queue[3].priority = Priority::kLow;
  const QueueSnapshot snapshot(Facts(queue, {{.models = {"m", "n"}, .is_free = false}}));
  EXPECT_EQ(snapshot.OfNewcomer("m", Priority::kHigh).position, 1);
  EXPECT_EQ(snapshot.OfNewcomer("n", Priority::kNormal).position, 3);
  EXPECT_EQ(snapshot.OfNewcomer("m", Priority::kLow).position, 4);
  EXPECT_EQ(snapshot.OfNewcomer("unknown", Priority::kLow).position, 0);
  EXPECT_EQ(snapshot.OfNewcomer("unknown", Priority::kLow).reason, kWaitsForWorker);
}

TEST(QueueWorkersTest, CountThoseThatTakeJobs) {
  scheduler::WorkerSnapshot up{.name = "up", .device = "cpu", .session = 1};
  up.models = {{.name = "b", .loaded = false}, {.name = "a", .loaded = true}};
  scheduler::WorkerSnapshot away = up, draining = up, busy = up, looking = up;
  away.session = 0;
  draining.is_draining = true;
  busy.held = {{.job_id = "j", .attempt = 1, .token = "t"}};
  looking.reserved = 1;
  scheduler::WorkerSnapshot out = up;
  out.is_out = true;
  const QueueWorker free{.name = "up", .models = {"a", "b"}, .loaded = {"a"}, .is_free = true};
  QueueWorker untrusted = free;
  untrusted.is_out = true;
  QueueWorker taken = free;
  taken.is_free = false;
  EXPECT_EQ(QueueWorkers({up, away, draining, busy, looking, out}),
            (std::vector<QueueWorker>{free, taken, free, untrusted}));
}

class Counter : public Wakeable {
 public:
  void Wake() override { ++wakes; }
  int wakes = 0;
};

class QueueViewTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto store =
        scheduler::OpenSqliteJobStore({.path = folder_.path() + "/jobs.db"}, {}, clock_, random_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    workers_ = {{.name = "cpu", .device = "cpu", .session = 1}};
    workers_[0].models = {{.name = "m", .loaded = true}};
    Open(nullptr);
  }
  // `history` outlives the view's use.
  void Open(const scheduler::RunHistory* history) {
    view_ = std::make_unique<QueueView>(QueueSources{.store = *store_,
                                                     .clock = clock_,
                                                     .workers = [this] { return workers_; },
                                                     .held_because = [this] { return held_; },
                                                     .waits_for_memory =
                                                         [this](const std::string&) {
                                                           // While a snapshot is made, after the
                                                           // queue was read.
                                                           const auto step =
                                                               std::exchange(during_walk_, nullptr);
                                                           if (step) step();
                                                           return false;
                                                         },
                                                     .busy = [this] { return busy_; },
                                                     .history = history},
                                        hub_);
  }
  void TearDown() override { view_->Stop(); }

  scheduler::Job Submit(Priority priority = Priority::kNormal) {
    scheduler::NewJob job;
    job.tenant = "default";
    job.model = std::string("m");  // GCC 12 misreads a short literal here
    job.priority = priority;
    job.work.shape = std::string("s");
    job.work.steps = 10;
    return store_->Submit(std::move(job))->job;
  }
  std::shared_ptr<Counter> Watch(const std::string& id) {
    auto watcher = std::make_shared<Counter>();
    hub_.Subscribe(id, watcher);
    return watcher;
  }

  kino::testing::TempDir folder_;
  scheduler::FakeClock clock_;
  scheduler::SeededRandom random_{7};
  std::unique_ptr<scheduler::JobStore> store_;
  WatchHub hub_;
  std::vector<scheduler::WorkerSnapshot> workers_;
  std::string held_;
  std::function<void()> during_walk_;
  BusyTimes busy_;
  std::unique_ptr<QueueView> view_;
};

TEST_F(QueueViewTest, QueueIsWalkedWhenItHasMovedAndNotOtherwise) {
  const scheduler::Job first = Submit(), second = Submit();
  EXPECT_EQ(view_->Find(second).position, 1);
  EXPECT_EQ(view_->walks(), 1);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(view_->Find(second).position, 1);
    view_->Refresh();
  }
  EXPECT_EQ(view_->walks(), 1);
  ASSERT_TRUE(store_->Cancel("default", first.id).ok());
  EXPECT_EQ(view_->Find(second).position, 0);
  EXPECT_EQ(view_->walks(), 2);
}

TEST_F(QueueViewTest, WorkersTheDiskAndTheEndOfABackOffMoveItToo) {
  const scheduler::Job job = Submit();
  EXPECT_EQ(view_->Find(job).reason, "");
  const auto history = KnownRuns();
  Open(history.get());
  workers_[0].held = {{.job_id = "j", .attempt = 1, .token = "t"}};
  EXPECT_EQ(view_->Find(job).reason, kWaitsForSlot);
  workers_[0].session = 0;
  EXPECT_EQ(view_->Find(job).reason, kWaitsForWorker);
  workers_[0].session = 2;
  workers_[0].held.clear();
  held_ = kWaitsForDisk;
  EXPECT_EQ(view_->Find(job).reason, kWaitsForDisk);
  held_ = "";
  const auto claim = store_->Claim(job.id, "cpu");
  ASSERT_TRUE(claim.ok() && claim->has_value());
  const auto failed = store_->Fail((*claim)->ref, {.cause = scheduler::FailureCause::kInternal,
                                                   .error = absl::InternalError("it broke"),
                                                   .stats = ""});
  ASSERT_TRUE(failed.ok() && failed->retry_not_before.has_value());
  EXPECT_EQ(view_->Find(*failed).reason, kWaitsForBackOff);
  EXPECT_EQ(view_->Find(*failed).until, *failed->retry_not_before);
  clock_.Advance(absl::Seconds(2));
  EXPECT_EQ(view_->Find(*failed).reason, "");
}

TEST_F(QueueViewTest, WhatMovesDuringAWalkIsTheNextOnes) {
  const scheduler::Job first = Submit(), second = Submit();
  during_walk_ = [&] { ASSERT_TRUE(store_->Cancel("default", first.id).ok()); };
  view_->Find(second);
  EXPECT_EQ(view_->Find(second).position, 0);
  EXPECT_EQ(view_->walks(), 2);
}

TEST_F(QueueViewTest, LongWalkIsFollowedByAPauseOfTenTimesItsLength) {
  const scheduler::Job first = Submit(), second = Submit();
  during_walk_ = [&] { clock_.Advance(absl::Seconds(1)); };
  EXPECT_EQ(view_->Find(second).position, 1);
  const scheduler::Job high = Submit(Priority::kHigh);
  // Meanwhile the old view holds, and a newcomer is behind all that it knows of its class.
  for (int i = 0; i < 9; ++i) {
    clock_.Advance(absl::Seconds(1));
    EXPECT_EQ(view_->Find(second).position, 1);
    EXPECT_EQ(view_->Find(high).position, 0);
    EXPECT_EQ(view_->Find(Submit()).position, 2);
  }
  EXPECT_EQ(view_->walks(), 1);
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(view_->Find(second).position, 2);
  EXPECT_EQ(view_->walks(), 2);
}

TEST_F(QueueViewTest, JobThatIsQueuedAgainIsToldWhereItStandsThoughItStoodThereBefore) {
  const scheduler::Job job = Submit();
  const auto watcher = Watch(job.id);
  view_->Refresh();
  EXPECT_EQ(watcher->wakes, 1);
  const scheduler::AttemptRef ref = (*store_->Claim(job.id, "cpu"))->ref;
  hub_.OnState(job.id, 2);
  hub_.OnBytes(job.id, 1, 0);
  ASSERT_TRUE(store_
                  ->Fail(ref, {.cause = scheduler::FailureCause::kInterrupted,
                               .error = absl::UnavailableError("drained"),
                               .stats = ""})
                  .ok());
  hub_.OnAttemptEnded(job.id, 1);
  hub_.OnState(job.id, 3);
  const int before = watcher->wakes;
  view_->Refresh();
  EXPECT_EQ(watcher->wakes, before + 1);
  EXPECT_EQ(hub_.View(job.id).standing->position, 0);
}

TEST_F(QueueViewTest, OnlyWatchersOfJobsThatMovedAreWoken) {
  const scheduler::Job high = Submit(Priority::kHigh), first = Submit(), second = Submit();
  const scheduler::Job low = Submit(Priority::kLow);
  const auto on_high = Watch(high.id), on_first = Watch(first.id), on_second = Watch(second.id);
  const auto on_low = Watch(low.id);
  view_->RefreshForWatchers();
  EXPECT_EQ(on_low->wakes, 1);
  ASSERT_TRUE(store_->Cancel("default", first.id).ok());
  view_->RefreshForWatchers();
  EXPECT_EQ(on_high->wakes, 1);
  EXPECT_EQ(on_second->wakes, 2);
  EXPECT_EQ(on_low->wakes, 2);
  EXPECT_EQ(hub_.View(low.id).standing->position, 2);
  EXPECT_EQ(hub_.View(first.id).standing, std::nullopt);
}

TEST_F(QueueViewTest, WatchersAreWokenWhenTheirEstimatesHaveMoved) {
  const auto history = KnownRuns();
  Open(history.get());
  workers_[0].held = {{.job_id = "running", .attempt = 1, .token = "t"}};
  busy_ = {{"cpu", absl::Seconds(100)}};
  const scheduler::Job job = Submit();
  const auto watcher = Watch(job.id);
  view_->RefreshForWatchers();
  EXPECT_EQ(watcher->wakes, 1);
  const absl::Time start = hub_.View(job.id).standing->start;
  EXPECT_EQ(start, clock_.Now() + absl::Seconds(100));
  clock_.Advance(absl::Seconds(10));
  busy_["cpu"] = absl::Seconds(90);
  view_->RefreshForWatchers();
  EXPECT_EQ(view_->walks(), 2);
  EXPECT_EQ(watcher->wakes, 1) << "as expected";
  clock_.Advance(absl::Seconds(10));
  busy_["cpu"] = absl::Seconds(40);
  view_->RefreshForWatchers();
  EXPECT_EQ(watcher->wakes, 2) << "sooner by 40 seconds";
  EXPECT_EQ(hub_.View(job.id).standing->start, start - absl::Seconds(40));
  view_->Stop();
}

// Such as one that a frontend before this one had given out, until it tells how far it is.
TEST_F(QueueViewTest, ARunWhoseEndBecomesKnownTellsWhenThoseBehindItStart) {
  const auto history = KnownRuns();
  Open(history.get());
  workers_[0].held = {{.job_id = "running", .attempt = 1, .token = "t"}};
  busy_ = {{"cpu", absl::InfiniteDuration()}};
  const scheduler::Job job = Submit();
  EXPECT_EQ(view_->Find(job).start, absl::InfiniteFuture());
  EXPECT_EQ(view_->Find(job).start, absl::InfiniteFuture());
  EXPECT_EQ(view_->walks(), 1) << "nothing has changed";
  busy_["cpu"] = absl::Seconds(100);
  EXPECT_EQ(view_->Find(job).start, clock_.Now() + absl::Seconds(100));
  busy_["cpu"] = absl::InfiniteDuration();
  EXPECT_EQ(view_->Find(job).start, absl::InfiniteFuture());
  view_->Stop();
}

TEST_F(QueueViewTest, TenThousandWatchersOfAnIdleQueueCostNothing) {
  std::vector<std::shared_ptr<Counter>> watchers;
  std::vector<scheduler::Job> jobs;
  for (int i = 0; i < 10; ++i) jobs.push_back(Submit());
  for (int i = 0; i < 10'000; ++i) watchers.push_back(Watch(jobs[i % jobs.size()].id));
  view_->RefreshForWatchers();
  const int64_t walks = view_->walks();
  for (int i = 0; i < 1000; ++i) {
    clock_.Advance(absl::Seconds(1));
    view_->RefreshForWatchers();
  }
  EXPECT_EQ(view_->walks(), walks);
  for (const auto& watcher : watchers) EXPECT_EQ(watcher->wakes, 1);
  // And one walk for all of them when it moves.
  ASSERT_TRUE(store_->Cancel("default", jobs[0].id).ok());
  view_->RefreshForWatchers();
  EXPECT_EQ(view_->walks(), walks + 1);
  for (const auto& watcher : watchers) EXPECT_EQ(watcher->wakes, 2);
}

TEST_F(QueueViewTest, NobodyWatchingNobodyWalks) {
  const scheduler::Job job = Submit();
  view_->RefreshForWatchers();
  EXPECT_EQ(view_->walks(), 0);
  hub_.OnBytes(job.id, 1, 0);  // it runs
  const auto watcher = Watch(job.id);
  view_->RefreshForWatchers();
  EXPECT_EQ(view_->walks(), 0);
}

}  // namespace
}  // namespace kino::frontend
