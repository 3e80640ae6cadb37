#include <set>
#include <utility>

#include "tests/scheduler/store/store_fixture.h"

namespace kino::scheduler {
namespace {

using AttemptsTest = StoreTest;
KINO_FOR_EVERY_STORE(AttemptsTest);

TEST_P(AttemptsTest, ClaimLeasesTheJobUnderANewToken) {
  const std::string id = Submit(MakeJob()).id;
  clock_.Advance(absl::Seconds(3));
  const ClaimedAttempt claimed = Claim();
  EXPECT_EQ(claimed.ref.job_id, id);
  EXPECT_EQ(claimed.ref.attempt, 1);
  EXPECT_THAT(claimed.ref.token, testing::MatchesRegex("[0-9a-f]{32}"));
  EXPECT_EQ(claimed.job.state, JobState::kRunning);
  EXPECT_EQ(claimed.job.start_time, clock_.Now());
  EXPECT_EQ(claimed.job.request, MakeJob().request);
  ASSERT_EQ(claimed.job.attempts.size(), 1u);
  EXPECT_EQ(claimed.job.attempts[0].worker, "worker-0");
  EXPECT_TRUE(store_->CheckAttempt(claimed.ref).ok());
  EXPECT_FALSE(HasWorkFor(kWorker));
}

TEST_P(AttemptsTest, ClaimsFollowClassThenOrderThenModel) {
  const auto submit = [&](const char* model, Priority priority) {
    NewJob job = MakeJob(model);
    job.priority = priority;
    return Submit(job).id;
  };
  const std::string low = submit("ltx", Priority::kLow);
  const std::string normal = submit("ltx", Priority::kNormal);
  const std::string foreign = submit("mochi", Priority::kHigh);
  const std::string normal2 = submit("ltx", Priority::kNormal);
  const std::string high = submit("ltx", Priority::kHigh);
  for (const std::string& want : {high, normal, normal2, low}) {
    EXPECT_EQ(Claim().ref.job_id, want);
  }
  EXPECT_FALSE(HasWorkFor(kWorker));
  EXPECT_EQ(Claim({.name = "worker-1", .models = {"ltx", "mochi"}}).ref.job_id, foreign);
}

TEST_P(AttemptsTest, QueueTellsWhatThePolicyNeedsAndNothingElse) {
  const std::string first = Submit(MakeJob()).id, ended = Submit(MakeJob()).id;
  NewJob urgent = MakeJob("mochi");
  urgent.priority = Priority::kHigh;
  urgent.start_timeout = absl::Minutes(3);
  const std::string high = Submit(urgent).id, running = Submit(MakeJob()).id;
  ASSERT_TRUE(store_->Cancel("default", ended).ok());
  ASSERT_TRUE((*store_->Claim(running, "worker-7")).has_value());
  const absl::Time submitted = clock_.Now();
  Reopen();
  const auto queue = store_->Queue();
  ASSERT_TRUE(queue.ok()) << queue.status();
  ASSERT_EQ(queue->size(), 2u);
  // In the order of the policy.
  const QueuedJob &b = (*queue)[0], &a = (*queue)[1];
  EXPECT_EQ(a.id, first);
  EXPECT_EQ(a.model, "ltx");
  EXPECT_EQ(a.priority, Priority::kNormal);
  EXPECT_EQ(a.retry_not_before, absl::InfinitePast());
  EXPECT_EQ(a.start_deadline, absl::InfiniteFuture());
  EXPECT_EQ(b.id, high);
  EXPECT_EQ(b.model, "mochi");
  EXPECT_EQ(b.priority, Priority::kHigh);
  EXPECT_EQ(b.start_deadline, submitted + absl::Minutes(3));
  EXPECT_LT(a.order, b.order);
}

TEST_P(AttemptsTest, NamedJobIsClaimedOnceAndOnlyWhileItIsQueued) {
  const std::string first = Submit(MakeJob()).id, second = Submit(MakeJob()).id;
  const auto claim = store_->Claim(second, "worker-7", 4711);
  ASSERT_TRUE(claim.ok() && claim->has_value()) << claim.status();
  EXPECT_EQ((*claim)->ref.job_id, second);
  EXPECT_EQ((*claim)->job.attempts.at(0).worker, "worker-7");
  EXPECT_TRUE(store_->CheckAttempt((*claim)->ref).ok());
  EXPECT_FALSE(store_->Claim(second, "worker-7")->has_value()) << "it runs";
  EXPECT_FALSE(store_->Claim("no", "worker-7")->has_value());
  ASSERT_TRUE(store_->FailQueued(first, absl::InternalError("x")).ok());
  EXPECT_FALSE(store_->Claim(first, "worker-7")->has_value()) << "it has ended";
  // When it may start, the queue in memory knows.
  Fail((*claim)->ref, FailureCause::kCrash);
  EXPECT_GT(store_->Queue()->front().retry_not_before, clock_.Now());
  EXPECT_TRUE(store_->Claim(second, "worker-7")->has_value());
}

TEST_P(AttemptsTest, ReasonOfAnErrorIsKept) {
  const std::string id = Submit(MakeJob()).id, plain = Submit(MakeJob()).id;
  ASSERT_TRUE(
      store_->FailQueued(id, WithReason(absl::FailedPreconditionError("9 GiB"), kReasonDoesNotFit))
          .ok());
  ASSERT_TRUE(store_->FailQueued(plain, absl::FailedPreconditionError("gone")).ok());
  Reopen();
  EXPECT_EQ(ReasonOf(store_->GetAnyTenant(id)->error), kReasonDoesNotFit);
  EXPECT_EQ(store_->GetAnyTenant(id)->error.message(), "9 GiB");
  EXPECT_EQ(ReasonOf(store_->GetAnyTenant(plain)->error), "");
}

TEST_P(AttemptsTest, CommitMakesTheResultVisible) {
  Submit(MakeJob());
  const ClaimedAttempt claimed = Claim();
  clock_.Advance(absl::Minutes(1));
  const auto done = store_->Commit(claimed.ref, MakeArtifact("a.mp4"), std::string("st\0ats", 6));
  ASSERT_TRUE(done.ok()) << done.status();
  Reopen();
  const auto read = store_->GetAnyTenant(claimed.ref.job_id);
  EXPECT_EQ(read->state, JobState::kSucceeded);
  EXPECT_EQ(read->end_time, clock_.Now());
  EXPECT_EQ(read->stats, std::string("st\0ats", 6));
  ASSERT_TRUE(read->artifact);
  EXPECT_EQ(read->artifact->file_name, "a.mp4");
  EXPECT_EQ(read->artifact->content_type, "video/mp4");
  EXPECT_EQ(read->artifact->size_bytes, 12345);
  EXPECT_EQ(read->artifact->sha256, "ab12");
  EXPECT_EQ(read->artifact->width, 64);
  EXPECT_EQ(read->artifact->height, 48);
  EXPECT_EQ(read->artifact->num_frames, 17);
  EXPECT_EQ(read->artifact->fps, 23.976);
  ASSERT_EQ(read->attempts.size(), 1u);
  EXPECT_EQ(read->attempts[0].end_time, clock_.Now());
  EXPECT_TRUE(read->attempts[0].error.ok());
}

TEST_P(AttemptsTest, EveryOperationOfAStaleAttemptIsRefused) {
  Submit(MakeJob());
  const AttemptRef first = Claim().ref;
  Fail(first, FailureCause::kInterrupted);
  const auto expect_refused = [&](const AttemptRef& ref, const char* what) {
    for (const absl::Status& status :
         {store_->CheckAttempt(ref), store_->RecordStats(ref, "x").status(),
          store_->Commit(ref, MakeArtifact("stale.mp4"), "x").status(),
          store_->Fail(ref, {.cause = FailureCause::kClient, .error = absl::InternalError("x")})
              .status()}) {
      EXPECT_TRUE(absl::IsAborted(status)) << what << ": " << status;
      EXPECT_TRUE(IsStaleAttempt(status)) << what;
    }
  };
  expect_refused(first, "the job is queued");
  const AttemptRef second = Claim().ref;
  EXPECT_EQ(second.attempt, 2);
  EXPECT_NE(second.token, first.token);
  expect_refused(first, "another attempt runs");
  expect_refused({second.job_id, 2, first.token}, "another token");
  expect_refused({second.job_id, 2, ""}, "no token");
  expect_refused({second.job_id, 1, second.token}, "another number");
  expect_refused({"nonsense", 2, second.token}, "another job");
  EXPECT_EQ(StateOf(second.job_id), JobState::kRunning);
  ASSERT_TRUE(store_->Commit(second, MakeArtifact("b.mp4"), "").ok());
  expect_refused(second, "the job has ended");
  expect_refused({second.job_id, 2, ""}, "no token, and the job has ended");
  EXPECT_EQ(store_->GetAnyTenant(second.job_id)->artifact->file_name, "b.mp4");
}

TEST_P(AttemptsTest, LostAttemptRunsAgainAtItsOldPlaceAfterTheBackoff) {
  const std::string id = Submit(MakeJob()).id;
  const std::string later = Submit(MakeJob()).id;
  const Job job = Fail(Claim().ref, FailureCause::kLeaseLost);
  EXPECT_EQ(job.state, JobState::kQueued);
  ASSERT_TRUE(job.retry_not_before);
  EXPECT_EQ(*job.retry_not_before, clock_.Now() + absl::Seconds(1));
  EXPECT_EQ(store_->Queue()->front().retry_not_before, *job.retry_not_before);
  const AttemptRef other = Claim().ref;
  EXPECT_EQ(other.job_id, later) << "a job that waits holds nobody up";
  Fail(other, FailureCause::kInterrupted);
  clock_.Advance(absl::Seconds(1));
  const ClaimedAttempt again = Claim();
  EXPECT_EQ(again.ref.job_id, id) << "the older job goes first";
  EXPECT_EQ(again.ref.attempt, 2);
  EXPECT_FALSE(again.job.retry_not_before);
  EXPECT_EQ(again.job.start_time, clock_.Now() - absl::Seconds(1)) << "that of the first attempt";
  ASSERT_EQ(again.job.attempts.size(), 2u);
  EXPECT_EQ(again.job.attempts[0].cause, FailureCause::kLeaseLost);
  EXPECT_EQ(again.job.attempts[0].error.message(), "it broke");
  EXPECT_TRUE(again.job.attempts[0].end_time);
  EXPECT_FALSE(again.job.attempts[1].end_time);
}

TEST_P(AttemptsTest, FourthFailureIsFinal) {
  const std::string id = Submit(MakeJob()).id;
  for (int attempt = 1; attempt <= 4; ++attempt) {
    EXPECT_EQ(StateOf(id), JobState::kQueued);
    Fail(Claim().ref, FailureCause::kInternal);
    clock_.Advance(absl::Minutes(1));
  }
  const auto read = store_->GetAnyTenant(id);
  EXPECT_EQ(read->state, JobState::kFailed);
  EXPECT_EQ(read->error.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(read->attempts.size(), 4u);
}

TEST_P(AttemptsTest, SecondCrashQuarantinesAndOtherJobsRunOn) {
  const std::string poison = Submit(MakeJob()).id;
  const std::string good = Submit(MakeJob()).id;
  Fail(Claim().ref, FailureCause::kCrash);
  clock_.Advance(absl::Minutes(1));
  EXPECT_EQ(Fail(Claim().ref, FailureCause::kHang).state, JobState::kQuarantined);
  EXPECT_EQ(store_->GetAnyTenant(poison)->failures.crashes, 2);
  EXPECT_EQ(Claim().ref.job_id, good);
}

TEST_P(AttemptsTest, InterruptionsCountNeitherAsCrashNorAsAttempt) {
  const std::string id = Submit(MakeJob()).id;
  for (int i = 0; i < 10; ++i) Fail(Claim().ref, FailureCause::kInterrupted);
  EXPECT_EQ(Fail(Claim().ref, FailureCause::kCrash).state, JobState::kQueued);
  clock_.Advance(absl::Minutes(1));
  const ClaimedAttempt claimed = Claim();
  EXPECT_EQ(claimed.ref.attempt, 12);
  EXPECT_EQ(claimed.job.failures.interruptions, 10);
  ASSERT_TRUE(store_->Commit(claimed.ref, MakeArtifact("a"), "").ok());
  EXPECT_EQ(StateOf(id), JobState::kSucceeded);
}

TEST_P(AttemptsTest, LatestAttemptsAreToldAndAllAreCounted) {
  const std::string id = Submit(MakeJob()).id;
  for (int i = 0; i < kAttemptsTold + 5; ++i) {
    const ClaimedAttempt claimed = Claim();
    EXPECT_EQ(claimed.ref.attempt, i + 1);
    Fail(claimed.ref, FailureCause::kInterrupted);
  }
  const Job job = *store_->GetAnyTenant(id);
  ASSERT_EQ(job.attempts.size(), static_cast<size_t>(kAttemptsTold));
  for (int i = 0; i < kAttemptsTold; ++i) EXPECT_EQ(job.attempts[i].number, i + 6);
  EXPECT_EQ(job.failures.interruptions, kAttemptsTold + 5);
}

TEST_P(AttemptsTest, FaultyRequestFailsAtOnce) {
  Submit(MakeJob());
  const ClaimedAttempt claimed = Claim();
  const auto job = store_->Fail(claimed.ref, {.cause = FailureCause::kClient,
                                              .error = absl::InvalidArgumentError("no such size"),
                                              .stats = "partial"});
  ASSERT_TRUE(job.ok());
  EXPECT_EQ(job->state, JobState::kFailed);
  EXPECT_EQ(job->error, absl::InvalidArgumentError("no such size"));
  EXPECT_EQ(job->stats, "partial");
}

TEST_P(AttemptsTest, RecordedStatsStayUntilReplaced) {
  Submit(MakeJob());
  const ClaimedAttempt claimed = Claim();
  ASSERT_TRUE(store_->RecordStats(claimed.ref, "plan").ok());
  const auto job = store_->Commit(claimed.ref, MakeArtifact("a"), "");
  EXPECT_EQ(job->stats, "plan");
}

TEST_P(AttemptsTest, QueuedJobIsCancelledAtOnce) {
  const std::string id = Submit(MakeJob()).id;
  const auto job = store_->Cancel("default", id);
  ASSERT_TRUE(job.ok());
  EXPECT_EQ(job->state, JobState::kCancelled);
  EXPECT_TRUE(job->end_time);
  EXPECT_TRUE(job->error.ok());
  EXPECT_FALSE(HasWorkFor(kWorker));
}

TEST_P(AttemptsTest, CommitAfterACancelRequestIsNotTaken) {
  Submit(MakeJob());
  const ClaimedAttempt claimed = Claim();
  const auto marked = store_->Cancel("default", claimed.ref.job_id);
  ASSERT_TRUE(marked.ok());
  EXPECT_EQ(marked->state, JobState::kRunning);
  EXPECT_TRUE(marked->cancel_requested);
  Reopen();
  const auto job = store_->Commit(claimed.ref, MakeArtifact("a.mp4"), "stats");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->state, JobState::kCancelled);
  EXPECT_FALSE(job->artifact);
  EXPECT_THAT(*store_->FindLeftOverFiles({"a.mp4"}), testing::ElementsAre("a.mp4"));
}

TEST_P(AttemptsTest, LostAttemptOfACancelledJobDoesNotRunAgain) {
  Submit(MakeJob());
  const ClaimedAttempt claimed = Claim();
  ASSERT_TRUE(store_->Cancel("default", claimed.ref.job_id).ok());
  EXPECT_EQ(Fail(claimed.ref, FailureCause::kLeaseLost).state, JobState::kCancelled);
}

TEST_P(AttemptsTest, CancellingAnEndedJobChangesNothing) {
  Submit(MakeJob());
  const ClaimedAttempt claimed = Claim();
  ASSERT_TRUE(store_->Commit(claimed.ref, MakeArtifact("a"), "").ok());
  const auto job = store_->Cancel("default", claimed.ref.job_id);
  ASSERT_TRUE(job.ok());
  EXPECT_EQ(job->state, JobState::kSucceeded);
  EXPECT_FALSE(job->cancel_requested);
  EXPECT_EQ(job->state_number, 3);
}

TEST_P(AttemptsTest, CancellingTwiceMarksOnce) {
  Submit(MakeJob());
  const std::string id = Claim().ref.job_id;
  ASSERT_TRUE(store_->Cancel("default", id).ok());
  EXPECT_EQ(store_->Cancel("default", id)->state_number, 3);
}

TEST_P(AttemptsTest, QueuedJobThatCannotRunAnyMoreFails) {
  const std::string id = Submit(MakeJob()).id;
  const auto job = store_->FailQueued(id, absl::NotFoundError("model 'ltx' is gone"));
  ASSERT_TRUE(job.ok());
  EXPECT_EQ(job->state, JobState::kFailed);
  EXPECT_EQ(job->error, absl::NotFoundError("model 'ltx' is gone"));
  EXPECT_TRUE(
      absl::IsFailedPrecondition(store_->FailQueued(id, absl::InternalError("x")).status()));
  EXPECT_TRUE(absl::IsNotFound(store_->FailQueued("no", absl::InternalError("x")).status()));
}

TEST_P(AttemptsTest, RunningAttemptsOutliveTheProcess) {
  NewJob limited = MakeJob();
  limited.run_timeout = absl::Minutes(7);
  Submit(MakeJob());
  Submit(limited);
  Submit(MakeJob());
  const AttemptRef first = Claim().ref;
  const auto claim = store_->Claim(store_->Queue()->front().id, "worker-1", 4711);
  ASSERT_TRUE(claim.ok() && claim->has_value()) << claim.status();
  const AttemptRef second = (*claim)->ref;
  ASSERT_TRUE(store_->Cancel("default", second.job_id).ok());
  Reopen();
  const auto running = store_->RunningAttempts();
  ASSERT_TRUE(running.ok()) << running.status();
  ASSERT_EQ(running->size(), 2u);
  EXPECT_EQ((*running)[0].ref, first);
  EXPECT_EQ((*running)[0].worker, "worker-0");
  EXPECT_EQ((*running)[0].run_timeout, absl::InfiniteDuration());
  EXPECT_FALSE((*running)[0].cancel_requested);
  EXPECT_EQ((*running)[0].process_id, 0);
  EXPECT_EQ((*running)[1].ref, second);
  EXPECT_EQ((*running)[1].worker, "worker-1");
  EXPECT_EQ((*running)[1].process_id, 4711);
  EXPECT_EQ((*running)[1].run_timeout, absl::Minutes(7));
  EXPECT_TRUE((*running)[1].cancel_requested);
  EXPECT_TRUE(store_->CheckAttempt(first).ok());
}

}  // namespace
}  // namespace kino::scheduler
