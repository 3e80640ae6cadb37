// Jobs that run again: an operator's Requeue, and crashes that were a device's doing.
#include "tests/scheduler/store/store_fixture.h"

namespace kino::scheduler {
namespace {

class RequeueTest : public StoreTest {
 protected:
  Job Requeue(const std::string& id) {
    auto job = store_->Requeue("default", id);
    EXPECT_TRUE(job.ok()) << job.status();
    return job.ok() ? *std::move(job) : Job();
  }
  // Runs the job's next attempt to this end.
  AttemptRef RunAndFail(const std::string& id, FailureCause cause) {
    const auto claim = store_->Claim(id, "worker-0");
    EXPECT_TRUE(claim.ok() && claim->has_value()) << claim.status();
    if (!claim.ok() || !claim->has_value()) return {};
    Fail((*claim)->ref, cause);
    return (*claim)->ref;
  }
  int Forgive(std::vector<AttemptRef> refs) {
    const auto forgiven = store_->ForgiveCrashes(std::move(refs));
    EXPECT_TRUE(forgiven.ok()) << forgiven.status();
    return forgiven.value_or(-1);
  }
  Job Read(const std::string& id) {
    auto job = store_->GetAnyTenant(id);
    EXPECT_TRUE(job.ok()) << job.status();
    return job.ok() ? *std::move(job) : Job();
  }
  // A job in `state`, whose start_timeout is an hour.
  std::string Make(JobState state) {
    NewJob job = MakeJob();
    job.start_timeout = absl::Hours(1);
    const std::string id = Submit(job).id;
    switch (state) {
      case JobState::kQueued:
        break;
      case JobState::kRunning:
        EXPECT_TRUE(store_->Claim(id, "worker-0")->has_value());
        break;
      case JobState::kSucceeded: {
        const AttemptRef ref = (*store_->Claim(id, "worker-0"))->ref;
        EXPECT_TRUE(store_->Commit(ref, MakeArtifact("a"), "").ok());
        break;
      }
      case JobState::kFailed:
        RunAndFail(id, FailureCause::kClient);
        break;
      case JobState::kCancelled:
        EXPECT_TRUE(store_->Cancel("default", id).ok());
        break;
      case JobState::kQuarantined:
        RunAndFail(id, FailureCause::kCrash);
        RunAndFail(id, FailureCause::kHang);
        break;
      case JobState::kExpired:
        EXPECT_TRUE(store_->Expire(id).ok());
        break;
    }
    EXPECT_EQ(StateOf(id), state);
    return id;
  }
};
KINO_FOR_EVERY_STORE(RequeueTest);

TEST_P(RequeueTest, OnlyFailedQuarantinedAndExpiredJobsMayRunAgain) {
  for (const JobState state : kAllJobStates) {
    SCOPED_TRACE(JobStateName(state));
    const std::string id = Make(state);
    const Job before = Read(id);
    const auto job = store_->Requeue("default", id);
    if (state == JobState::kFailed || state == JobState::kQuarantined ||
        state == JobState::kExpired) {
      ASSERT_TRUE(job.ok()) << job.status();
      EXPECT_EQ(job->state, JobState::kQueued);
      EXPECT_EQ(job->attempts.size(), before.attempts.size());
      continue;
    }
    EXPECT_TRUE(absl::IsFailedPrecondition(job.status())) << job.status();
    EXPECT_EQ(ReasonOf(job.status()), kReasonJobNotRequeuable);
    EXPECT_EQ(StateOf(id), state);
    EXPECT_EQ(Read(id).state_number, before.state_number);
  }
  EXPECT_TRUE(absl::IsNotFound(store_->Requeue("default", "nonsense").status()));
  EXPECT_TRUE(absl::IsNotFound(store_->Requeue("other", Make(JobState::kFailed)).status()));
}

TEST_P(RequeueTest, RequeuedJobIsAsIfNothingHadFailed) {
  const std::string id = Make(JobState::kQuarantined), later = Submit(MakeJob()).id;
  clock_.Advance(absl::Hours(5));
  const Job job = Requeue(id);
  EXPECT_TRUE(job.error.ok()) << job.error;
  EXPECT_FALSE(job.end_time || job.retry_not_before || job.cancel_requested);
  EXPECT_EQ(job.failures.crashes, 0);
  EXPECT_EQ(job.failures.interruptions, 0);
  EXPECT_EQ(job.attempts.size(), 2u) << "they stay";
  EXPECT_EQ(Events(id).back().reason, "requeued");
  EXPECT_EQ(Events(id).back().time, clock_.Now());
  Reopen();
  const auto queue = store_->Queue();
  ASSERT_EQ(queue->size(), 2u);
  EXPECT_EQ((*queue)[0].id, id) << "its old place";
  EXPECT_EQ((*queue)[1].id, later);
  EXPECT_EQ((*queue)[0].start_deadline, clock_.Now() + absl::Hours(1)) << "anew";
  EXPECT_EQ((*queue)[0].retry_not_before, absl::InfinitePast());
  EXPECT_EQ(store_->Load()->queued[Priority::kNormal], 2);
  const ClaimedAttempt third = Claim();
  EXPECT_EQ(third.ref.job_id, id);
  EXPECT_EQ(third.ref.attempt, 3);
  ASSERT_TRUE(store_->Commit(third.ref, MakeArtifact("a"), "").ok());
}

TEST_P(RequeueTest, LimitsApplyToTheNewAttemptsAlone) {
  const std::string id = Submit(MakeJob()).id;
  for (int round = 0; round < 2; ++round) {
    for (int i = 1; i <= 4; ++i) {
      EXPECT_EQ(StateOf(id), JobState::kQueued) << round << ", attempt " << i;
      RunAndFail(id, FailureCause::kInternal);
    }
    EXPECT_EQ(StateOf(id), JobState::kFailed);
    Requeue(id);
  }
  for (const JobState want : {JobState::kQueued, JobState::kQuarantined}) {
    RunAndFail(id, FailureCause::kCrash);
    EXPECT_EQ(StateOf(id), want);
  }
  Requeue(id);
  for (int i = 0; i < 3; ++i) RunAndFail(id, FailureCause::kUncleanStop);
  EXPECT_EQ(StateOf(id), JobState::kQuarantined);
  EXPECT_EQ(Read(id).failures.unclean_stops, 3);
  Requeue(id);
  EXPECT_EQ(Read(id).failures.unclean_stops, 0);
}

TEST_P(RequeueTest, BackoffAfterRequeueingIsThatOfAFirstFailure) {
  const std::string id = Make(JobState::kQuarantined);
  Requeue(id);
  RunAndFail(id, FailureCause::kInternal);
  EXPECT_EQ(Read(id).retry_not_before, clock_.Now() + absl::Seconds(1));
}

TEST_P(RequeueTest, JobWhoseAssetIsGoneStaysAsItIs) {
  for (const char* asset : {"one", "two"}) {
    ASSERT_TRUE(store_->InsertAsset({.id = asset, .tenant = "default", .file_name = asset}).ok());
  }
  NewJob job = MakeJob();
  job.asset_ids = {"one", "two"};
  const std::string id = Submit(job).id;
  RunAndFail(id, FailureCause::kClient);
  ASSERT_TRUE(store_->DeleteAsset("default", "two").ok());
  const auto refused = store_->Requeue("default", id);
  EXPECT_TRUE(absl::IsFailedPrecondition(refused.status())) << refused.status();
  EXPECT_EQ(ReasonOf(refused.status()), kReasonJobNotRequeuable);
  EXPECT_THAT(std::string(refused.status().message()), testing::HasSubstr("'two'"));
  EXPECT_EQ(StateOf(id), JobState::kFailed);
  ASSERT_TRUE(store_->InsertAsset({.id = "two", .tenant = "default", .file_name = "two"}).ok());
  Requeue(id);
  EXPECT_FALSE(store_->DeleteAsset("default", "two").ok()) << "it is needed again";
}

TEST_P(RequeueTest, ListenersHearOfARequeuedJobWhatThePolicyNeeds) {
  const std::string id = Make(JobState::kExpired);
  std::vector<Change> heard;  // written before Requeue returns
  store_->AddChangeListener([&](const std::vector<Change>& changes) { heard = changes; });
  Requeue(id);
  ASSERT_EQ(heard.size(), 1u);
  EXPECT_EQ(heard[0].event.state, JobState::kQueued);
  ASSERT_TRUE(heard[0].queued);
  EXPECT_EQ(heard[0].queued->id, id);
  EXPECT_EQ(heard[0].queued->model, "ltx");
  EXPECT_EQ(heard[0].queued->order, store_->Queue()->front().order);
  EXPECT_EQ(heard[0].queued->start_deadline, clock_.Now() + absl::Hours(1));
}

// --- Crashes that were a device's doing. ---

TEST_P(RequeueTest, ForgivenCrashesCountNeitherAsCrashNorAsAttempt) {
  const std::string id = Submit(MakeJob()).id;
  const AttemptRef crash = RunAndFail(id, FailureCause::kCrash);
  EXPECT_EQ(Forgive({crash}), 1);
  EXPECT_EQ(Read(id).failures.crashes, 0);
  EXPECT_EQ(Read(id).failures.interruptions, 1);
  EXPECT_EQ(StateOf(id), JobState::kQueued);
  for (int i = 1; i <= 3; ++i) RunAndFail(id, FailureCause::kInternal);
  EXPECT_EQ(StateOf(id), JobState::kQueued) << "the fourth that counts is still to come";
  RunAndFail(id, FailureCause::kInternal);
  EXPECT_EQ(StateOf(id), JobState::kFailed);
}

TEST_P(RequeueTest, JobQuarantinedForThemIsFreed) {
  NewJob job = MakeJob();
  job.start_timeout = absl::Hours(1);
  const std::string id = Submit(job).id;
  std::vector<AttemptRef> refs;
  for (const FailureCause cause : {FailureCause::kDeviceLost, FailureCause::kHang}) {
    refs.push_back(RunAndFail(id, cause));
  }
  ASSERT_EQ(StateOf(id), JobState::kQuarantined);
  clock_.Advance(absl::Hours(3));
  std::vector<Change> heard;
  store_->AddChangeListener([&](const std::vector<Change>& changes) { heard = changes; });
  EXPECT_EQ(Forgive(refs), 2);
  EXPECT_EQ(heard.size(), 1u);
  EXPECT_EQ(heard.at(0).queued->id, id);
  const Job freed = Read(id);
  EXPECT_EQ(freed.state, JobState::kQueued);
  EXPECT_TRUE(freed.error.ok());
  EXPECT_FALSE(freed.end_time || freed.retry_not_before);
  EXPECT_EQ(freed.failures.crashes, 0);
  EXPECT_EQ(freed.failures.interruptions, 2);
  EXPECT_EQ(Events(id).back().reason, "the device was to blame");
  EXPECT_EQ(Events(id).back().time, clock_.Now());
  EXPECT_EQ(store_->Queue()->front().start_deadline, clock_.Now() + absl::Hours(1)) << "anew";
  EXPECT_EQ(Claim().ref.attempt, 3);
}

TEST_P(RequeueTest, OneOfTwoCrashesForgivenIsEnough) {
  const std::string id = Submit(MakeJob()).id;
  RunAndFail(id, FailureCause::kCrash);
  const AttemptRef second = RunAndFail(id, FailureCause::kCrash);
  EXPECT_EQ(Forgive({second}), 1);
  EXPECT_EQ(StateOf(id), JobState::kQueued);
  EXPECT_EQ(Read(id).failures.crashes, 1);
  RunAndFail(id, FailureCause::kCrash);
  EXPECT_EQ(StateOf(id), JobState::kQuarantined);
}

TEST_P(RequeueTest, JobIsFreedOnceFewerCrashesAreLeftThanQuarantine) {
  options_.retry.max_crashes = 5;
  Reopen();
  const std::string id = Submit(MakeJob()).id;
  std::vector<AttemptRef> refs;
  for (int i = 0; i < 3; ++i) refs.push_back(RunAndFail(id, FailureCause::kCrash));
  // The next configuration allows less.
  options_.retry.max_crashes = 2;
  Reopen();
  EXPECT_EQ(StateOf(id), JobState::kQueued) << "what has happened is not judged anew";
  refs.push_back(RunAndFail(id, FailureCause::kCrash));
  for (size_t i = 0; i < refs.size() && i < 3; ++i) {
    EXPECT_EQ(StateOf(id), JobState::kQuarantined) << Read(id).failures.crashes << " are left";
    EXPECT_EQ(Forgive({refs[i]}), 1);
  }
  EXPECT_EQ(StateOf(id), JobState::kQueued);
  EXPECT_EQ(Read(id).failures.crashes, 1);
}

TEST_P(RequeueTest, ForgivingTwiceCountsOnce) {
  const std::string id = Submit(MakeJob()).id;
  const AttemptRef first = RunAndFail(id, FailureCause::kCrash);
  const AttemptRef second = RunAndFail(id, FailureCause::kCrash);
  EXPECT_EQ(Forgive({first, first}), 1);
  EXPECT_EQ(Forgive({first}), 0);
  EXPECT_EQ(Read(id).failures.crashes, 1);
  EXPECT_EQ(Read(id).failures.interruptions, 1);
  EXPECT_EQ(Forgive({first, second}), 1);
  EXPECT_EQ(Read(id).failures.crashes, 0);
  EXPECT_EQ(Read(id).failures.interruptions, 2);
}

TEST_P(RequeueTest, WhatIsNoCrashOfThatNameIsPassedOver) {
  const std::string id = Submit(MakeJob()).id;
  const AttemptRef crash = RunAndFail(id, FailureCause::kCrash);
  const AttemptRef internal = RunAndFail(id, FailureCause::kInternal);
  const AttemptRef lease = RunAndFail(id, FailureCause::kLeaseLost);
  const AttemptRef running = (*store_->Claim(id, "worker-0"))->ref;
  const Job before = Read(id);
  EXPECT_EQ(Forgive({}), 0);
  EXPECT_EQ(Forgive({{id, crash.attempt, "another token"},
                     {id, internal.attempt, crash.token},
                     {"nonsense", crash.attempt, crash.token},
                     {id, 99, crash.token},
                     internal,
                     lease,
                     running}),
            0);
  EXPECT_EQ(Read(id).failures.crashes, 1);
  EXPECT_EQ(Read(id).failures.interruptions, 0);
  EXPECT_EQ(Read(id).state_number, before.state_number);
  EXPECT_TRUE(store_->CheckAttempt(running).ok());
  EXPECT_EQ(Forgive({running, crash}), 1) << "also while another attempt runs";
  EXPECT_TRUE(store_->CheckAttempt(running).ok());
  EXPECT_EQ(Read(id).failures.crashes, 0);
}

TEST_P(RequeueTest, EndedJobsThatWereNotQuarantinedStayEnded) {
  for (const FailureCause end : {FailureCause::kClient, FailureCause::kCancelled}) {
    const std::string id = Submit(MakeJob()).id;
    const AttemptRef crash = RunAndFail(id, FailureCause::kCrash);
    RunAndFail(id, end);
    const JobState state = StateOf(id);
    EXPECT_TRUE(IsTerminal(state));
    EXPECT_EQ(Forgive({crash}), 1);
    EXPECT_EQ(StateOf(id), state);
    EXPECT_FALSE(Read(id).error.ok() && state == JobState::kFailed);
  }
}

TEST_P(RequeueTest, CrashesFromBeforeItWasRequeuedAreNotTakenOffTheNewOnes) {
  const std::string id = Submit(MakeJob()).id;
  const AttemptRef first = RunAndFail(id, FailureCause::kCrash);
  const AttemptRef second = RunAndFail(id, FailureCause::kCrash);
  Requeue(id);
  RunAndFail(id, FailureCause::kCrash);
  EXPECT_EQ(Forgive({first, second}), 0) << "they count no more anyway";
  EXPECT_EQ(Read(id).failures.crashes, 1);
  EXPECT_EQ(Read(id).failures.interruptions, 0);
  RunAndFail(id, FailureCause::kCrash);
  EXPECT_EQ(StateOf(id), JobState::kQuarantined);
}

TEST_P(RequeueTest, JobQuarantinedForUncleanStopsStaysSo) {
  const std::string id = Submit(MakeJob()).id;
  const AttemptRef crash = RunAndFail(id, FailureCause::kCrash);
  for (int i = 0; i < 3; ++i) RunAndFail(id, FailureCause::kUncleanStop);
  ASSERT_EQ(StateOf(id), JobState::kQuarantined);
  EXPECT_EQ(Forgive({crash}), 1);
  EXPECT_EQ(StateOf(id), JobState::kQuarantined);
  EXPECT_EQ(Read(id).failures.crashes, 0);
}

TEST_P(RequeueTest, JobWhoseAssetIsGoneIsForgivenButNotFreed) {
  ASSERT_TRUE(store_->InsertAsset({.id = "one", .tenant = "default", .file_name = "one"}).ok());
  NewJob job = MakeJob();
  job.asset_ids = {"one"};
  const std::string id = Submit(job).id;
  std::vector<AttemptRef> refs;
  for (int i = 0; i < 2; ++i) refs.push_back(RunAndFail(id, FailureCause::kCrash));
  ASSERT_TRUE(store_->DeleteAsset("default", "one").ok());
  EXPECT_EQ(Forgive(refs), 2);
  EXPECT_EQ(StateOf(id), JobState::kQuarantined);
  EXPECT_EQ(Read(id).failures.crashes, 0);
}

// --- What is known of a death. ---

TEST_P(RequeueTest, EvidenceOfAnAttemptIsKeptWithIt) {
  const std::string id = Submit(MakeJob()).id, evidence("stage 3\0signal 11", 17);
  const AttemptRef first = (*store_->Claim(id, "worker-0"))->ref;
  ASSERT_TRUE(store_
                  ->Fail(first, {.cause = FailureCause::kCrash,
                                 .error = absl::InternalError("it broke"),
                                 .evidence = evidence})
                  .ok());
  RunAndFail(id, FailureCause::kInternal);
  Reopen();
  const Job job = Read(id);
  ASSERT_EQ(job.attempts.size(), 2u);
  EXPECT_EQ(job.attempts[0].evidence, evidence);
  EXPECT_EQ(job.attempts[1].evidence, "");
}

}  // namespace
}  // namespace kino::scheduler
