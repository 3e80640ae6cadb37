// The dispatcher on a real store: every queued job reaches a worker, each once, whatever comes and
// goes.
#include "scheduler/workers/dispatcher.h"

#include <set>

#include "scheduler/status.h"
#include "tests/scheduler/workers/dispatcher_fixture.h"

namespace kino::scheduler {
namespace {

TEST_F(DispatcherTest, JobGoesToAWaitingWorker) {
  const SessionId session = Connect("w", 1);
  Submit();
  const AttemptRef ref = StartedLast(1);
  EXPECT_EQ(*registry_->Holder(ref), session);
  EXPECT_EQ(started_[0].session, session);
  EXPECT_TRUE(started_[0].assigned.ok());
}

TEST_F(DispatcherTest, WaitingJobGoesToANewWorker) {
  Submit();
  Connect("w", 1);
  StartedLast(1);
}

TEST_F(DispatcherTest, SlotsBoundWhatRunsAtATime) {
  for (int i = 0; i < 10; ++i) Submit();
  Connect("w", 2);
  Connect("v", 1);
  EXPECT_EQ(started_.size(), 3u);
  EXPECT_EQ(store_->RunningAttempts()->size(), 3u);
  EXPECT_EQ(queue_->size(), 7);
}

TEST_F(DispatcherTest, JobsWithoutAWorkerForTheirModelWait) {
  Connect("w", 1);
  const std::string mochi = Submit("mochi"), ltx = Submit("ltx");
  EXPECT_EQ(StartedLast(1).job_id, ltx);
  ExpectUntouched(mochi);
}

TEST_F(DispatcherTest, EveryJobRunsOnceInOrderOfSubmission) {
  constexpr size_t kJobs = 100;
  Connect("w", 1);
  Connect("v", 2);
  std::vector<std::string> submitted, ran;
  for (size_t i = 0; i < kJobs; ++i) {
    NewJob job;
    job.model = "ltx";
    submitted.push_back(SubmitOnly(std::move(job)));
    if (i % 3 == 2) Settle();
  }
  for (size_t i = 0; i < started_.size(); ++i) {
    ran.push_back(started_[i].ref.job_id);
    Finish(started_[i].ref);
  }
  EXPECT_EQ(ran, submitted);
  EXPECT_EQ(queue_->size(), 0);
}

TEST_F(DispatcherTest, WorkerThatHoldsTheModelIsPreferred) {
  ASSERT_TRUE(
      registry_
          ->Hello(
              {.name = "a-cold", .process_id = 1, .max_attempts = 1, .models = {{"ltx", false}}})
          .ok());
  const SessionId warm = Connect("warm", 2);
  for (int i = 0; i < 2; ++i) {
    Submit();
    EXPECT_EQ(started_.back().session, warm);
  }
  Submit();
  EXPECT_NE(started_.back().session, warm) << "it is full";
}

TEST_F(DispatcherTest, ProcessOfTheWorkerIsWrittenDown) {
  ASSERT_TRUE(
      registry_
          ->Hello({.name = "w", .process_id = 4711, .max_attempts = 1, .models = {{"ltx", false}}})
          .ok());
  Submit();
  const auto running = store_->RunningAttempts();
  ASSERT_EQ(running->size(), 1u);
  EXPECT_EQ((*running)[0].process_id, 4711);
  EXPECT_EQ((*running)[0].worker, "w");
}

TEST_F(DispatcherTest, AttemptIsHandedToStartThoughItsWorkerWentAwayWhileItWasClaimed) {
  // What would be wrong: the attempt is dropped, and its job runs for ever on nobody.
  const SessionId session = ConnectOnly("w", 1);
  NewJob job;
  job.model = "ltx";
  const std::string id = SubmitOnly(std::move(job));
  ASSERT_TRUE(Step());  // QUEUED: asks, and the answer waits
  ASSERT_TRUE(Step());  // the answer: claims
  Flush();
  EXPECT_EQ(Read(id).state, JobState::kRunning);
  registry_->Disconnected(session);
  Settle();
  ASSERT_EQ(started_.size(), 1u);
  EXPECT_EQ(started_[0].ref.job_id, id);
  EXPECT_EQ(started_[0].ref.attempt, 1);
  EXPECT_EQ(started_[0].session, session);
  EXPECT_TRUE(absl::IsAborted(started_[0].assigned)) << started_[0].assigned;
  EXPECT_TRUE(IsStaleAttempt(registry_->Holder(started_[0].ref).status()));
  EXPECT_EQ(Read(id).state, JobState::kQueued) << "the fixture's Start ended it";
  EXPECT_EQ(Read(id).failures.interruptions, 1);
  EXPECT_FALSE(Read(id).retry_not_before);
  Connect("v", 1);
  EXPECT_EQ(StartedLast(2).attempt, 2);
}

TEST_F(DispatcherTest, AttemptClaimedThoughTheDispatcherWasStoppedIsHandedToStart) {
  ConnectOnly("w", 1);
  NewJob job;
  job.model = "ltx";
  const std::string id = SubmitOnly(std::move(job));
  ASSERT_TRUE(Step());
  ASSERT_TRUE(Step());
  dispatcher_->Stop();
  Settle();
  EXPECT_EQ(Read(id).state, JobState::kRunning);
  EXPECT_EQ(StartedLast(1).job_id, id);
  EXPECT_TRUE(started_[0].assigned.ok());
}

TEST_F(DispatcherTest, StoppedDispatcherClaimsNothing) {
  dispatcher_->Stop();
  const std::string id = Submit();
  Connect("w", 1);
  EXPECT_TRUE(asked_.empty());
  EXPECT_EQ(reserved(), 0);
  ExpectUntouched(id);
}

TEST_F(DispatcherTest, HeldDispatcherClaimsNothingUntilItIsLetGo) {
  EXPECT_EQ(dispatcher_->hold(), "");
  dispatcher_->SetHold("the disk is full");
  EXPECT_EQ(dispatcher_->hold(), "the disk is full");
  Submit();
  Connect("w", 1);
  dispatcher_->SetHold("the disk is still full");
  Settle();
  EXPECT_TRUE(asked_.empty());
  dispatcher_->SetHold("");
  Settle();
  StartedLast(1);
}

TEST_F(JudgeTest, JobThatIsJudgedWhileNothingMayBeClaimedIsAskedAboutAgain) {
  const std::string id = Submit();
  Connect("w", 1);
  const Question question = Asked(1);
  dispatcher_->SetHold("the disk is full");
  Answer(question, kFitsHere);
  ExpectUntouched(id);
  EXPECT_TRUE(started_.empty());
  EXPECT_EQ(reserved(), 0);
  EXPECT_EQ(asked_.size(), 1u);
  dispatcher_->SetHold("");
  Answer(Asked(2), kFitsHere);
  EXPECT_EQ(StartedLast(1).job_id, id);
}

TEST_F(DispatcherTest, JobWaitsForTheEndOfItsBackoff) {
  const std::string id = Submit();
  Connect("w", 1);
  const AttemptRef ref = StartedLast(1);
  ASSERT_TRUE(
      store_->Fail(ref, {.cause = FailureCause::kInternal, .error = absl::InternalError("x")})
          .ok());
  registry_->Release(ref);
  dispatcher_->Pump();
  Settle();
  EXPECT_EQ(started_.size(), 1u);
  const absl::Duration due = queue_->NextTimer();
  EXPECT_EQ(due, clock_.Monotonic() + absl::Seconds(1));
  for (const absl::Duration step : {absl::Hours(1), -absl::Hours(24) * 3650}) {
    clock_.JumpWall(step);
    dispatcher_->Pump();
    Settle();
    EXPECT_EQ(started_.size(), 1u);
  }
  clock_.Advance(absl::Seconds(1));
  dispatcher_->Pump();
  Settle();
  EXPECT_EQ(StartedLast(2).job_id, id);
  EXPECT_EQ(queue_->NextTimer(), absl::InfiniteDuration());
}

TEST_F(JudgeTest, TimeInTheQueueCountsWhateverTheWallClockDoes) {
  size_t count = 0;
  Connect("w", 1);
  for (const absl::Duration step : {absl::Hours(1), -absl::Hours(1)}) {
    SCOPED_TRACE(absl::FormatDuration(step));
    NewJob job;
    job.model = "ltx";
    job.start_timeout = absl::Minutes(30);
    const std::string id = Submit(job);
    clock_.Advance(absl::Minutes(10));
    clock_.JumpWall(step);
    // The question was asked before; what counts is when the job is claimed.
    Answer(Asked(++count), kFitsHere);
    const AttemptRef ref = StartedLast(count);
    ASSERT_EQ(ref.job_id, id);
    clock_.Advance(absl::Hours(5));
    clock_.JumpWall(step);
    ASSERT_TRUE(
        store_
            ->Fail(ref, {.cause = FailureCause::kInterrupted, .error = absl::UnavailableError("x")})
            .ok());
    Settle();
    EXPECT_EQ(queue_->StartLeft(id), absl::Minutes(20));
    EXPECT_EQ(store_->Queue()->front().start_deadline, clock_.Now() + absl::Minutes(20));
    EXPECT_EQ(Cancel(id), JobState::kCancelled);
    registry_->Release(ref);
    dispatcher_->Pump();
    Settle();
  }
}

TEST_F(DispatcherTest, BackoffThatEndsWhileNobodyIsReadyIsNoTimerAnyMore) {
  // What would be wrong: the timer is always due, and whoever waits for it runs in a circle.
  for (const bool is_held : {false, true}) {
    QueuedJob job{.id = "a", .model = "ltx"};
    job.retry_not_before = clock_.Now() + absl::Seconds(5);
    queue_->Add(job);
    dispatcher_->SetHold(is_held ? "the disk is full" : "");
    EXPECT_EQ(queue_->NextTimer(), clock_.Monotonic() + absl::Seconds(5));
    clock_.Advance(absl::Seconds(5));
    dispatcher_->Pump();
    EXPECT_EQ(queue_->NextTimer(), absl::InfiniteDuration());
  }
}

TEST_F(DispatcherTest, RestartedProcessGoesOnWithTheQueueOfTheStore) {
  const std::string a = Submit(), b = Submit();
  End();
  Begin();
  const auto queue = store_->Queue();
  ASSERT_TRUE(queue.ok()) << queue.status();
  for (const QueuedJob& job : *queue) queue_->Add(job);
  Connect("w", 2);
  ASSERT_EQ(started_.size(), 2u);
  EXPECT_EQ(started_[0].ref.job_id, a);
  EXPECT_EQ(started_[1].ref.job_id, b);
}

}  // namespace
}  // namespace kino::scheduler
