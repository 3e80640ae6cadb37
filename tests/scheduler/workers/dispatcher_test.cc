// The dispatcher on a real store: every queued job reaches a worker, each once, whatever comes and
// goes.
#include "scheduler/workers/dispatcher.h"

#include <set>

#include "tests/scheduler/workers/dispatcher_fixture.h"

namespace kino::scheduler {
namespace {

TEST_F(DispatcherTest, JobGoesToAWaitingWorker) {
  const SessionId session = Connect("w", 1);
  Submit();
  const AttemptRef ref = AwaitStarted(1);
  EXPECT_EQ(*registry_.Holder(ref), session);
}

TEST_F(DispatcherTest, WaitingJobGoesToANewWorker) {
  Submit();
  Connect("w", 1);
  AwaitStarted(1);
}

TEST_F(DispatcherTest, SlotsBoundWhatRunsAtATime) {
  for (int i = 0; i < 10; ++i) Submit();
  Connect("w", 2);
  Connect("v", 1);
  AwaitStarted(3);
  Settle();
  EXPECT_EQ(started(), 3u);
  EXPECT_EQ(store_->RunningAttempts()->size(), 3u);
}

TEST_F(DispatcherTest, JobsWithoutAWorkerForTheirModelWait) {
  Connect("w", 1);
  Submit("mochi");
  Submit("ltx");
  AwaitStarted(1);
  Settle();
  EXPECT_EQ(started(), 1u);
}

TEST_F(DispatcherTest, EveryJobRunsOnceThoughSubmissionsRaceWithIdleWorkers) {
  constexpr size_t kJobs = 200;
  Connect("w", 1);
  Connect("v", 2);
  for (size_t i = 1; i <= kJobs; ++i) {
    Submit();
    Finish(AwaitStarted(i));
  }
  absl::MutexLock lock(&mutex_);
  std::set<std::string> jobs;
  for (const auto& [session, ref] : started_) jobs.insert(ref.job_id);
  EXPECT_EQ(jobs.size(), kJobs);
}

TEST_F(DispatcherTest, JobClaimedForAWorkerThatWentAwayIsQueuedAgainUncounted) {
  // The worker leaves while its claim is under way: the listener runs between the commit and the
  // claim's callback.
  const SessionId session =
      registry_.Hello({.name = "w", .process_id = 1, .max_attempts = 1, .models = {{"ltx", true}}})
          ->session;
  store_->AddChangeListener([&](const std::vector<Change>& changes) {
    for (const Change& change : changes) {
      if (change.event.state == JobState::kRunning) registry_.Disconnected(session);
    }
  });
  Submit();
  Settle();
  EXPECT_EQ(started(), 0u);
  const auto jobs = store_->List({.states = {JobState::kQueued}}, 10, "");
  ASSERT_TRUE(jobs.ok());
  ASSERT_EQ(jobs->jobs.size(), 1u);
  EXPECT_EQ(jobs->jobs[0].failures.interruptions, 1);
  EXPECT_FALSE(jobs->jobs[0].retry_not_before);
  Connect("v", 1);
  EXPECT_EQ(AwaitStarted(1).attempt, 2);
}

TEST_F(DispatcherTest, StoppedDispatcherClaimsNothing) {
  dispatcher_->Stop();
  Submit();
  Connect("w", 1);
  Settle();
  EXPECT_EQ(started(), 0u);
}

}  // namespace
}  // namespace kino::scheduler
