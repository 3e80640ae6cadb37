// The dispatcher on a real store: every queued job reaches a worker, each once, whatever comes and
// goes.
#include "scheduler/workers/dispatcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "absl/synchronization/mutex.h"
#include "scheduler/store/sqlite/open.h"
#include "tests/support/fake_clock.h"
#include "tests/support/seeded_random.h"

namespace kino::scheduler {
namespace {

class DispatcherTest : public testing::Test {
 protected:
  DispatcherTest() {
    std::string name = (std::filesystem::temp_directory_path() / "kino-dispatch-XXXXXX").string();
    folder_ = mkdtemp(name.data());
    auto store = OpenSqliteJobStore({.path = folder_ + "/jobs.db"}, {}, clock_, random_);
    EXPECT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    dispatcher_ = std::make_unique<Dispatcher>(
        *store_, registry_,
        [this](SessionId session, ClaimedAttempt claimed) {
          absl::MutexLock lock(&mutex_);
          started_.emplace_back(session, claimed.ref);
        },
        [](const std::string& message) { ADD_FAILURE() << message; });
    store_->AddChangeListener([this](const std::vector<Change>& changes) {
      for (const Change& change : changes) {
        if (change.event.state == JobState::kQueued) dispatcher_->Pump();
      }
    });
  }
  ~DispatcherTest() override {
    dispatcher_->Stop();
    store_.reset();
    std::filesystem::remove_all(folder_);
  }

  void Submit(const std::string& model = "ltx") {
    NewJob job;
    job.tenant = "default";
    job.model = model;
    ASSERT_TRUE(store_->Submit(job).ok());
  }
  SessionId Connect(const std::string& name, int slots) {
    const SessionId session =
        registry_
            .Hello(
                {.name = name, .process_id = 1, .max_attempts = slots, .models = {{"ltx", true}}})
            ->session;
    dispatcher_->Pump();
    return session;
  }
  // Waits until `count` attempts have been started in all; gives the last.
  AttemptRef AwaitStarted(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto is_there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return started_.size() >= count;
    };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&is_there), absl::Seconds(60)))
        << started_.size() << " of " << count << " started";
    return started_.empty() ? AttemptRef() : started_.back().second;
  }
  void Finish(const AttemptRef& ref) {
    ASSERT_TRUE(store_->Commit(ref, {.file_name = ref.job_id}, "").ok());
    registry_.Release(ref);
    dispatcher_->Pump();
  }
  // When this returns, every claim that was under way has been answered.
  void Settle() {
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(store_->ExpireDue().ok());
  }
  size_t started() {
    absl::MutexLock lock(&mutex_);
    return started_.size();
  }

  std::string folder_;
  FakeClock clock_;
  SeededRandom random_{3};
  WorkerRegistry registry_{LeaseOptions(), clock_};
  absl::Mutex mutex_;
  std::vector<std::pair<SessionId, AttemptRef>> started_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<Dispatcher> dispatcher_;
};

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
