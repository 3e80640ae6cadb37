// The dispatcher with a judge: what becomes of a job that fits here, elsewhere or nowhere, and of
// what happens while it is judged.
#include <set>

#include "scheduler/status.h"
#include "tests/scheduler/workers/dispatcher_fixture.h"

namespace kino::scheduler {
namespace {

TEST_F(JudgeTest, FittingJobIsHandedOverOnceThatIsKnown) {
  const std::string id = Submit();
  const SessionId session = Connect("w", 1);
  const Question question = Asked(1);
  EXPECT_EQ(question.worker, "w");
  EXPECT_EQ(question.session, session);
  EXPECT_EQ(question.job_id, id);
  EXPECT_TRUE(started_.empty());
  ExpectUntouched(id);
  EXPECT_EQ(reserved(), 1) << "the slot waits for the job";
  Answer(question, kFitsHere);
  const AttemptRef ref = StartedLast(1);
  EXPECT_EQ(ref.job_id, id);
  EXPECT_EQ(ref.attempt, 1);
  EXPECT_EQ(*registry_->Holder(ref), session);
  EXPECT_EQ(reserved(), 0);
}

TEST_F(JudgeTest, AnswerMayComeBeforeTheJudgeReturns) {
  AnswerAtOnce(kFitsHere);
  Connect("w", 1);
  for (size_t i = 1; i <= 20; ++i) {
    Submit();
    Finish(StartedLast(i));
  }
  EXPECT_EQ(asked_.size(), 20u);
}

TEST_F(JudgeTest, JobThatIsBeingJudgedIsOfferedToNoOtherSlot) {
  const std::string a = Submit();
  Connect("v", 2);
  const Question first = Asked(1);
  Connect("w", 1);
  EXPECT_EQ(asked_.size(), 1u);
  const std::string b = Submit();
  const Question second = Asked(2);
  EXPECT_EQ(second.job_id, b);
  Answer(second, kFitsHere);
  EXPECT_EQ(StartedLast(1).job_id, b) << "who waits for an answer holds up nobody";
  Answer(first, kFitsHere);
  EXPECT_EQ(StartedLast(2).job_id, a);
  EXPECT_EQ(asked_.size(), 2u);
}

TEST_F(JudgeTest, SlotsThatAreFreeAtOnceAskOnceForEachJob) {
  Submit();
  ConnectOnly("v", 1);
  ConnectOnly("w", 1);
  dispatcher_->Pump();
  dispatcher_->Pump();
  Settle();
  EXPECT_EQ(asked_.size(), 1u);
  EXPECT_EQ(reserved(), 1) << "the other slot is free for what comes";
  Submit();
  EXPECT_EQ(asked_.size(), 2u);
  EXPECT_NE(asked_[0].worker, asked_[1].worker);
}

TEST_F(JudgeTest, SecondSlotOfAWorkerThatTheJobDidNotFitDoesNotAskAgain) {
  AnswerAtOnce(kFitsElsewhere);
  Submit();
  Connect("w", 2);
  dispatcher_->Pump();
  Settle();
  EXPECT_EQ(asked_.size(), 1u);
  EXPECT_EQ(reserved(), 0);
}

TEST_F(JudgeTest, JobThatFitsElsewhereGoesThereAsIfNothingHadBeen) {
  AnswerAtOnce([](const std::string& worker, const auto&) {
    return worker == "small" ? kFitsElsewhere : kFitsHere;
  });
  Connect("small", 1);
  const std::string id = Submit();
  EXPECT_EQ(asked_.size(), 1u);
  ExpectUntouched(id);
  const SessionId big = Connect("tall", 1);
  const AttemptRef ref = StartedLast(1);
  EXPECT_EQ(*registry_->Holder(ref), big);
  EXPECT_EQ(ref.attempt, 1);
  const Job job = Read(id);
  EXPECT_EQ(job.attempts.size(), 1u);
  EXPECT_EQ(job.failures.interruptions, 0);
  EXPECT_EQ(job.state_number, 2);
}

TEST_F(JudgeTest, WorkerThatLookedWhileTheJobWasJudgedLooksAgain) {
  Connect("v", 1);
  Connect("w", 1);
  const std::string id = Submit();
  const Question first = Asked(1);
  EXPECT_EQ(first.worker, "v");
  Answer(first, kFitsElsewhere);
  const Question second = Asked(2);
  EXPECT_EQ(second.worker, "w");
  EXPECT_EQ(second.job_id, id);
}

TEST_F(JudgeTest, UnfitJobsKeepTheirPlacesAndHoldUpNobodyBehindThem) {
  const std::string a = Submit(), b = Submit(), c = Submit();
  AnswerAtOnce([c](const std::string& worker, const std::string& job_id) {
    return worker == "big" || job_id == c ? kFitsHere : kFitsElsewhere;
  });
  Connect("small", 1);
  const AttemptRef first = StartedLast(1);
  EXPECT_EQ(first.job_id, c);
  ExpectUntouched(a);
  ExpectUntouched(b);
  const auto places = queue_->InOrder();
  ASSERT_EQ(places.size(), 2u);
  EXPECT_EQ(places[0].job.id, a);
  EXPECT_EQ(places[1].job.id, b);
  Finish(first);
  EXPECT_EQ(asked_.size(), 3u) << "the small worker is not asked again";
  Connect("big", 1);
  const AttemptRef second = StartedLast(2);
  EXPECT_EQ(second.job_id, a);
  Finish(second);
  EXPECT_EQ(StartedLast(3).job_id, b);
}

TEST_F(JudgeTest, QueueOfUnfitJobsIsJudgedOncePerWorkerAndThenRests) {
  constexpr size_t kJobs = 40;
  AnswerAtOnce(kFitsElsewhere);
  Connect("u", 1);
  Connect("v", 2);
  Connect("w", 1);
  for (size_t i = 0; i < kJobs; ++i) Submit();
  EXPECT_EQ(asked_.size(), 3 * kJobs);
  for (int i = 0; i < 10; ++i) {
    dispatcher_->Pump();
    Settle();
    EXPECT_EQ(reserved(), 0) << "somebody still looks";
  }
  EXPECT_EQ(store_->Load()->queued[Priority::kNormal], static_cast<int64_t>(kJobs));
  std::set<std::pair<std::string, std::string>> pairs;
  for (const Question& question : asked_) pairs.emplace(question.worker, question.job_id);
  EXPECT_EQ(pairs.size(), 3 * kJobs);
  EXPECT_EQ(asked_.size(), 3 * kJobs);
}

TEST_F(JudgeTest, WorkerThatSaysHelloAnewIsOfferedTheJobAgain) {
  const std::string id = Submit();
  Connect("w", 1);
  Answer(Asked(1), kFitsElsewhere);
  EXPECT_EQ(asked_.size(), 1u);
  const SessionId again = Connect("w", 1);
  const Question question = Asked(2);
  EXPECT_EQ(question.session, again);
  Answer(question, kFitsHere);
  EXPECT_EQ(StartedLast(1).job_id, id);
}

TEST_F(JudgeTest, JobIsJudgedAnewWhenAnyWorkerComesGoesDrainsOrIsPutOut) {
  AnswerAtOnce(kFitsElsewhere);
  ASSERT_TRUE(registry_
                  ->Hello({.name = "sick",
                           .process_id = 1,
                           .device = "cuda:1",
                           .max_attempts = 1,
                           .models = {{"mochi", true}}})
                  .ok());
  Connect("small", 1);
  Submit();
  size_t asked = 1;
  const auto expect_asked_once_more = [&](const char* why) {
    SCOPED_TRACE(why);
    dispatcher_->Pump();
    Settle();
    EXPECT_EQ(Asked(++asked).worker, "small");
    dispatcher_->Pump();
    Settle();
    EXPECT_EQ(asked_.size(), asked);
  };
  const auto other = [&](const std::string& name) {
    return registry_
        ->Hello({.name = name, .process_id = 1, .max_attempts = 1, .models = {{"mochi", true}}})
        ->session;
  };
  Asked(1);
  const SessionId big = other("tall");
  expect_asked_once_more("one came");
  ASSERT_TRUE(registry_->StartDraining(big).ok());
  expect_asked_once_more("one drains");
  registry_->Disconnected(big);
  expect_asked_once_more("one went");
  registry_->SetOut("cuda:1", true);
  expect_asked_once_more("a device is out");
  registry_->SetOut("cuda:1", false);
  expect_asked_once_more("a device is back");
  other("mortal");
  expect_asked_once_more("another one came");
  registry_->WorkerEnded("mortal", 1, FailureCause::kCrash, "killed");
  expect_asked_once_more("one died");
  registry_->ForgetAllUnfit();
  expect_asked_once_more("somebody said so");
}

TEST_F(JudgeTest, AnswerFromBeforeAWorkerWentIsNotRemembered) {
  Connect("small", 1);
  const SessionId big = Connect("tall", 1);
  ASSERT_TRUE(registry_->StartDraining(big).ok());
  Submit();
  const Question first = Asked(1);
  Disconnect(big);
  Answer(first, kFitsElsewhere);
  EXPECT_EQ(Asked(2).worker, "small") << "there is no elsewhere any more";
}

TEST_F(JudgeTest, JobThatFitsNowhereFailsAndTheNextOneIsLookedAt) {
  const std::string id = Submit(), next = Submit();
  Connect("w", 1);
  Answer(Asked(1), kFitsNowhere);
  const Question second = Asked(2);
  EXPECT_EQ(second.job_id, next);
  const Job job = Read(id);
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_TRUE(absl::IsFailedPrecondition(job.error)) << job.error;
  EXPECT_EQ(job.error.message(), kFitsNowhere.error.message());
  EXPECT_EQ(ReasonOf(job.error), "DOES_NOT_FIT");
  EXPECT_TRUE(job.attempts.empty());
  EXPECT_FALSE(job.start_time);
  EXPECT_TRUE(job.end_time);
  const auto events = store_->ReadEvents(id, 0, 10);
  ASSERT_EQ(events->size(), 2u);
  EXPECT_EQ(events->back().attempt, 0);
  EXPECT_EQ(events->back().reason, kFitsNowhere.error.message());
  EXPECT_EQ(started_.size(), 0u);
}

TEST_F(JudgeTest, ReasonOfTheJudgeIsKeptAndAMissingErrorMadeUp) {
  const std::string a = Submit(), b = Submit();
  AnswerAtOnce([a](const auto&, const std::string& job_id) -> Verdict {
    if (job_id != a) return {.fit = Fit::kNowhere, .error = {}};
    return {.fit = Fit::kNowhere, .error = WithReason(absl::InternalError("x"), "OTHER")};
  });
  Connect("w", 1);
  Asked(2);
  EXPECT_EQ(ReasonOf(Read(a).error), "OTHER");
  EXPECT_EQ(Read(b).state, JobState::kFailed);
  EXPECT_TRUE(absl::IsFailedPrecondition(Read(b).error)) << Read(b).error;
  EXPECT_EQ(ReasonOf(Read(b).error), "DOES_NOT_FIT");
}

TEST_F(JudgeTest, JobCancelledWhileItIsJudgedIsCancelledAtOnceWhateverTheAnswer) {
  Connect("w", 1);
  size_t asked_before = 0;
  for (const Verdict& verdict : kVerdicts) {
    SCOPED_TRACE(static_cast<int>(verdict.fit));
    const std::string id = Submit();
    const Question question = Asked(asked_before + 1);
    EXPECT_EQ(question.job_id, id);
    EXPECT_EQ(store_->Cancel("default", id)->state, JobState::kCancelled);
    Answer(question, verdict);
    Settle();
    EXPECT_EQ(Read(id).state, JobState::kCancelled);
    EXPECT_EQ(Read(id).state_number, 2);
    EXPECT_TRUE(Read(id).attempts.empty());
    EXPECT_EQ(started_.size(), 0u);
    EXPECT_EQ(reserved(), 0);
    EXPECT_THAT(UnfitOf("w"), testing::IsEmpty()) << "an ended job is not remembered";
    ++asked_before;
  }
}

TEST_F(JudgeTest, JobThatEndsWhileItsAnswerIsUnderWayIsNotRemembered) {
  const std::string id = Submit();
  Connect("w", 1);
  // The answer is posted before the change, and after it.
  for (const bool answer_first : {true, false}) {
    SCOPED_TRACE(answer_first);
    const std::string next = answer_first ? id : Submit();
    const Question question = asked_.back();
    ASSERT_EQ(question.job_id, next);
    if (answer_first) question.done(kFitsElsewhere);
    ASSERT_TRUE(store_->Cancel("default", next).ok());
    if (!answer_first) question.done(kFitsElsewhere);
    Settle();
    EXPECT_THAT(UnfitOf("w"), testing::IsEmpty());
    EXPECT_EQ(reserved(), 0);
  }
}

TEST_F(JudgeTest, AnswerFromBeforeTheJobWasRequeuedMeansNothing) {
  // Were it taken, the job would start in its new back-off, fail again, or be offered twice.
  for (const Verdict& verdict : kVerdicts) {
    SCOPED_TRACE(static_cast<int>(verdict.fit));
    const size_t before = asked_.size();
    const SessionId session = Connect("w", 2);
    const std::string id = Submit();
    const Question old = Asked(before + 1);
    ASSERT_TRUE(store_->FailQueued(id, absl::InternalError("the model is gone")).ok());
    ASSERT_TRUE(store_->Requeue("default", id).ok());
    Settle();
    const Question question = Asked(before + 2);
    EXPECT_EQ(question.job_id, id);
    EXPECT_EQ(reserved(), 2);
    Answer(old, verdict);
    EXPECT_EQ(Read(id).state, JobState::kQueued);
    EXPECT_TRUE(Read(id).attempts.empty());
    EXPECT_EQ(asked_.size(), before + 2) << "the other question still holds it";
    EXPECT_EQ(reserved(), 1);
    Answer(question, kFitsHere);
    EXPECT_EQ(started_.back().ref.job_id, id);
    EXPECT_EQ(started_.back().ref.attempt, 1);
    Finish(started_.back().ref);
    Disconnect(session);
  }
}

TEST_F(JudgeTest, PassedOverJobIsForgottenWhenItEnds) {
  AnswerAtOnce(kFitsElsewhere);
  Connect("w", 1);
  const std::string a = Submit(), b = Submit();
  Asked(2);
  EXPECT_THAT(UnfitOf("w"), testing::UnorderedElementsAre(a, b));
  Cancel(a);
  EXPECT_THAT(UnfitOf("w"), testing::ElementsAre(b));
}

TEST_F(JudgeTest, WorkerWithTooManyUnfitJobsRestsUntilOneEnds) {
  AnswerAtOnce(kFitsElsewhere);
  std::string first;
  for (size_t i = 0; i <= kMaxUnfitJobs; ++i) {
    NewJob job;
    job.model = "ltx";
    const std::string id = SubmitOnly(std::move(job));
    if (i == 0) first = id;
  }
  Settle();
  Connect("w", 1);
  dispatcher_->Pump();
  Settle();
  EXPECT_EQ(asked_.size(), kMaxUnfitJobs);
  Cancel(first);
  EXPECT_EQ(asked_.size(), kMaxUnfitJobs + 1);
}

TEST_F(JudgeTest, JobThatExpiresWhileItIsJudgedIsNotStarted) {
  NewJob job;
  job.model = "ltx";
  job.start_timeout = absl::Seconds(5);
  const std::string id = Submit(std::move(job));
  Connect("w", 1);
  const Question question = Asked(1);
  clock_.Advance(absl::Seconds(5));
  EXPECT_THAT(queue_->TakeOverdue(), testing::ElementsAre(id));
  ASSERT_TRUE(store_->Expire(id).ok());
  Settle();
  Answer(question, kFitsHere);
  EXPECT_TRUE(started_.empty());
  EXPECT_EQ(asked_.size(), 1u);
  EXPECT_EQ(reserved(), 0);
  EXPECT_EQ(Read(id).state, JobState::kExpired);
}

TEST_F(JudgeTest, JobIsUntouchedWhenItsWorkerGoesWhileItIsJudged) {
  for (const Verdict& verdict : {kFitsHere, kFitsElsewhere}) {
    SCOPED_TRACE(static_cast<int>(verdict.fit));
    const size_t before = asked_.size();
    const SessionId session = Connect("w", 1);
    const std::string id = Submit();
    const Question question = Asked(before + 1);
    Disconnect(session);
    Answer(question, verdict);
    ExpectUntouched(id);
    EXPECT_TRUE(started_.empty());
    const SessionId next = Connect("v", 1);
    const Question again = Asked(before + 2);
    EXPECT_EQ(again.job_id, id);
    EXPECT_EQ(again.session, next);
    Cancel(id);
    Disconnect(next);
    Answer(again, kFitsHere);
    EXPECT_TRUE(started_.empty());
  }
}

TEST_F(JudgeTest, JobThatFitsNowhereFailsThoughItsWorkerHasGone) {
  const SessionId session = Connect("w", 1);
  const std::string id = Submit();
  const Question question = Asked(1);
  registry_->Disconnected(session);
  Answer(question, kFitsNowhere);
  EXPECT_EQ(Read(id).state, JobState::kFailed);
}

TEST_F(JudgeTest, JobIsNotClaimedForAWorkerThatDrainsMeanwhile) {
  const SessionId session = Connect("w", 1);
  const std::string id = Submit();
  const Question question = Asked(1);
  ASSERT_TRUE(registry_->StartDraining(session).ok());
  Answer(question, kFitsHere);
  ExpectUntouched(id);
  EXPECT_EQ(asked_.size(), 1u);
  EXPECT_EQ(reserved(), 0);
}

TEST_F(JudgeTest, OldAnswerDoesNotMarkTheNewSession) {
  const SessionId session = Connect("w", 1);
  const std::string id = Submit();
  const Question old = Asked(1);
  registry_->Disconnected(session);
  Connect("w", 1);
  Answer(old, kFitsElsewhere);
  const Question question = Asked(2);
  EXPECT_EQ(question.job_id, id);
  Answer(question, kFitsHere);
  StartedLast(1);
}

}  // namespace
}  // namespace kino::scheduler
