// The dispatcher with a judge: what becomes of a job that fits here, elsewhere or nowhere, and of
// what happens while it is judged.
#include <map>
#include <set>

#include "scheduler/status.h"
#include "tests/scheduler/workers/judge_fixture.h"

namespace kino::scheduler {
namespace {

TEST_F(JudgeTest, FittingJobIsHandedOverOnceThatIsKnown) {
  const std::string id = Submit();
  const SessionId session = Connect("w", 1);
  const Question question = AwaitAsked(1);
  EXPECT_EQ(question.worker, "w");
  EXPECT_EQ(question.session, session);
  EXPECT_EQ(question.job_id, id);
  Settle();
  EXPECT_EQ(started(), 0u);
  ExpectUntouched(id);
  EXPECT_EQ(reserved(), 1) << "the slot waits for the job";
  question.done(kFitsHere);
  const AttemptRef ref = AwaitStarted(1);
  EXPECT_EQ(ref.job_id, id);
  EXPECT_EQ(ref.attempt, 1);
  EXPECT_EQ(*registry_.Holder(ref), session);
  EXPECT_EQ(reserved(), 0);
}

TEST_F(JudgeTest, AnswerMayComeBeforeTheJudgeReturns) {
  AnswerAtOnce([](const auto&, const auto&) { return kFitsHere; });
  Connect("w", 1);
  for (size_t i = 1; i <= 20; ++i) {
    Submit();
    Finish(AwaitStarted(i));
  }
  Settle();
  EXPECT_EQ(asked(), 20u);
}

TEST_F(JudgeTest, JobThatIsBeingJudgedIsOfferedToNoOtherSlot) {
  const std::string a = Submit();
  Connect("v", 2);
  Connect("w", 1);
  const Question first = AwaitAsked(1);
  Settle();
  EXPECT_EQ(asked(), 1u);
  const std::string b = Submit();
  const Question second = AwaitAsked(2);
  EXPECT_EQ(second.job_id, b);
  second.done(kFitsHere);
  EXPECT_EQ(AwaitStarted(1).job_id, b) << "who waits for an answer holds up nobody";
  first.done(kFitsHere);
  EXPECT_EQ(AwaitStarted(2).job_id, a);
  Settle();
  EXPECT_EQ(asked(), 2u);
  EXPECT_EQ(started(), 2u);
}

TEST_F(JudgeTest, SlotsThatFindTheSameJobAtOnceAskOnce) {
  const std::string a = Submit();
  WhileStoreIsBusy([&] {
    Connect("v", 1);
    Connect("w", 1);
    EXPECT_EQ(reserved(), 2);
  });
  AwaitAsked(1);
  Settle();
  EXPECT_EQ(asked(), 1u);
  EXPECT_EQ(reserved(), 1) << "the other slot is free for what comes";
  Submit();
  AwaitAsked(2);
}

TEST_F(JudgeTest, SlotOfAWorkerThatTheJobDidNotFitJustNowDoesNotAskAgain) {
  AnswerAtOnce([](const auto&, const auto&) { return kFitsElsewhere; });
  Submit();
  WhileStoreIsBusy([&] {
    Connect("w", 2);
    dispatcher_->Pump();
    EXPECT_EQ(reserved(), 2);
  });
  AwaitAsked(1);
  Settle();
  EXPECT_EQ(asked(), 1u);
  EXPECT_EQ(reserved(), 0);
}

TEST_F(JudgeTest, JobThatFitsElsewhereGoesThereAsIfNothingHadBeen) {
  AnswerAtOnce([](const std::string& worker, const auto&) {
    return worker == "small" ? kFitsElsewhere : kFitsHere;
  });
  Connect("small", 1);
  const std::string id = Submit();
  AwaitAsked(1);
  Settle();
  ExpectUntouched(id);
  const SessionId big = Connect("tall", 1);
  const AttemptRef ref = AwaitStarted(1);
  EXPECT_EQ(*registry_.Holder(ref), big);
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
  const Question first = AwaitAsked(1);
  EXPECT_EQ(first.worker, "v");
  Settle();
  EXPECT_EQ(asked(), 1u);
  first.done(kFitsElsewhere);
  const Question second = AwaitAsked(2);
  EXPECT_EQ(second.worker, "w");
  EXPECT_EQ(second.job_id, id);
}

TEST_F(JudgeTest, UnfitJobsKeepTheirPlacesAndHoldUpNobodyBehindThem) {
  const std::string a = Submit(), b = Submit(), c = Submit();
  AnswerAtOnce([c](const std::string& worker, const std::string& job_id) {
    return worker == "big" || job_id == c ? kFitsHere : kFitsElsewhere;
  });
  Connect("small", 1);
  const AttemptRef first = AwaitStarted(1);
  EXPECT_EQ(first.job_id, c);
  Settle();
  ExpectUntouched(a);
  ExpectUntouched(b);
  EXPECT_EQ((*store_->QueuePositions({a, b})), (std::map<std::string, int64_t>{{a, 0}, {b, 1}}));
  Finish(first);
  Settle();
  EXPECT_EQ(asked(), 3u) << "the small worker is not asked again";
  Connect("big", 1);
  const AttemptRef second = AwaitStarted(2);
  EXPECT_EQ(second.job_id, a);
  Finish(second);
  EXPECT_EQ(AwaitStarted(3).job_id, b);
}

TEST_F(JudgeTest, QueueOfUnfitJobsIsJudgedOncePerWorkerAndThenRests) {
  constexpr size_t kJobs = 40;
  AnswerAtOnce([](const auto&, const auto&) { return kFitsElsewhere; });
  Connect("u", 1);
  Connect("v", 2);
  Connect("w", 1);
  for (size_t i = 0; i < kJobs; ++i) Submit();
  AwaitAsked(3 * kJobs);
  Settle();
  for (int i = 0; i < 10; ++i) {
    dispatcher_->Pump();
    Settle();
    EXPECT_EQ(reserved(), 0) << "somebody still looks";
  }
  EXPECT_EQ(store_->Load()->queued[Priority::kNormal], static_cast<int64_t>(kJobs));
  absl::MutexLock lock(&mutex_);
  std::set<std::pair<std::string, std::string>> pairs;
  for (const Question& question : asked_) pairs.emplace(question.worker, question.job_id);
  EXPECT_EQ(pairs.size(), 3 * kJobs);
  EXPECT_EQ(asked_.size(), 3 * kJobs);
}

TEST_F(JudgeTest, WorkerThatSaysHelloAnewIsOfferedTheJobAgain) {
  const std::string id = Submit();
  Connect("w", 1);
  AwaitAsked(1).done(kFitsElsewhere);
  Settle();
  EXPECT_EQ(asked(), 1u);
  const SessionId again = Connect("w", 1);
  const Question question = AwaitAsked(2);
  EXPECT_EQ(question.session, again);
  question.done(kFitsHere);
  EXPECT_EQ(AwaitStarted(1).job_id, id);
}

TEST_F(JudgeTest, JobIsJudgedAnewWhenAnyWorkerComesGoesOrDrains) {
  Connect("small", 1);
  const SessionId big = Connect("tall", 1);
  AnswerAtOnce([](const auto&, const auto&) { return kFitsElsewhere; });
  Submit();
  AwaitAsked(2);
  Settle();
  ASSERT_TRUE(registry_.StartDraining(big).ok());
  dispatcher_->Pump();
  EXPECT_EQ(AwaitAsked(3).worker, "small");
  Settle();
  registry_.Disconnected(big);
  dispatcher_->Pump();
  EXPECT_EQ(AwaitAsked(4).worker, "small");
  Settle();
  registry_.ForgetAllUnfit();
  dispatcher_->Pump();
  AwaitAsked(5);
  Settle();
  EXPECT_EQ(asked(), 5u);
}

TEST_F(JudgeTest, AnswerFromBeforeAWorkerWentIsNotRemembered) {
  Connect("small", 1);
  const SessionId big = Connect("tall", 1);
  ASSERT_TRUE(registry_.StartDraining(big).ok());
  Submit();
  const Question first = AwaitAsked(1);
  registry_.Disconnected(big);
  dispatcher_->Pump();
  first.done(kFitsElsewhere);
  EXPECT_EQ(AwaitAsked(2).worker, "small") << "there is no elsewhere any more";
}

TEST_F(JudgeTest, JobThatFitsNowhereFailsAndTheNextOneIsLookedAt) {
  const std::string id = Submit(), next = Submit();
  Connect("w", 1);
  AwaitAsked(1).done(kFitsNowhere);
  const Question second = AwaitAsked(2);
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
  Settle();
  EXPECT_EQ(started(), 0u);
}

TEST_F(JudgeTest, ReasonOfTheJudgeIsKeptAndAMissingErrorMadeUp) {
  const std::string a = Submit(), b = Submit();
  AnswerAtOnce([a](const auto&, const std::string& job_id) -> Verdict {
    if (job_id != a) return {.fit = Fit::kNowhere, .error = {}};
    return {.fit = Fit::kNowhere, .error = WithReason(absl::InternalError("x"), "OTHER")};
  });
  Connect("w", 1);
  AwaitAsked(2);
  Settle();
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
    const Question question = AwaitAsked(asked_before + 1);
    EXPECT_EQ(question.job_id, id);
    EXPECT_EQ(store_->Cancel("default", id)->state, JobState::kCancelled);
    question.done(verdict);
    Settle();
    EXPECT_EQ(Read(id).state, JobState::kCancelled);
    EXPECT_EQ(Read(id).state_number, 2);
    EXPECT_TRUE(Read(id).attempts.empty());
    EXPECT_EQ(started(), 0u);
    EXPECT_EQ(reserved(), 0);
    EXPECT_THAT(UnfitOf("w"), testing::IsEmpty()) << "an ended job is not remembered";
    ++asked_before;
  }
}

TEST_F(JudgeTest, JobThatEndsInTheTransactionThatFoundItIsNotRemembered) {
  AnswerAtOnce([](const auto&, const auto&) { return kFitsElsewhere; });
  const std::string id = Submit();
  WhileStoreIsBusy([&] {
    Connect("w", 1);
    store_->Cancel("default", id, [](const auto&) {});
  });
  AwaitAsked(1);
  Settle();
  EXPECT_THAT(UnfitOf("w"), testing::IsEmpty());
}

TEST_F(JudgeTest, PassedOverJobIsForgottenWhenItEnds) {
  AnswerAtOnce([](const auto&, const auto&) { return kFitsElsewhere; });
  Connect("w", 1);
  const std::string a = Submit(), b = Submit();
  AwaitAsked(2);
  Settle();
  EXPECT_THAT(UnfitOf("w"), testing::UnorderedElementsAre(a, b));
  ASSERT_TRUE(store_->Cancel("default", a).ok());
  EXPECT_THAT(UnfitOf("w"), testing::ElementsAre(b));
}

TEST_F(JudgeTest, WorkerWithTooManyUnfitJobsRestsUntilOneEnds) {
  AnswerAtOnce([](const auto&, const auto&) { return kFitsElsewhere; });
  std::string first;
  for (size_t i = 0; i <= kMaxUnfitJobs; ++i) {
    NewJob job;
    job.model = "ltx";
    const std::string id = Submit(std::move(job));
    if (i == 0) first = id;
  }
  Connect("w", 1);
  AwaitAsked(kMaxUnfitJobs);
  dispatcher_->Pump();
  Settle();
  EXPECT_EQ(asked(), kMaxUnfitJobs);
  ASSERT_TRUE(store_->Cancel("default", first).ok());
  AwaitAsked(kMaxUnfitJobs + 1);
}

TEST_F(JudgeTest, JobThatExpiresWhileItIsJudgedIsNotStarted) {
  NewJob job;
  job.model = "ltx";
  job.start_timeout = absl::Seconds(5);
  const std::string id = Submit(std::move(job));
  Connect("w", 1);
  const Question question = AwaitAsked(1);
  clock_.Advance(absl::Seconds(5));
  question.done(kFitsHere);
  Settle();
  EXPECT_EQ(started(), 0u);
  EXPECT_EQ(asked(), 1u);
  EXPECT_EQ(reserved(), 0);
  EXPECT_EQ(Read(id).state, JobState::kExpired);
}

TEST_F(JudgeTest, JobIsUntouchedWhenItsWorkerGoesWhileItIsJudged) {
  for (const Verdict& verdict : {kFitsHere, kFitsElsewhere}) {
    SCOPED_TRACE(static_cast<int>(verdict.fit));
    const size_t before = asked();
    const SessionId session = Connect("w", 1);
    const std::string id = Submit();
    const Question question = AwaitAsked(before + 1);
    registry_.Disconnected(session);
    question.done(verdict);
    Settle();
    ExpectUntouched(id);
    EXPECT_EQ(started(), 0u);
    const SessionId next = Connect("v", 1);
    const Question again = AwaitAsked(before + 2);
    EXPECT_EQ(again.job_id, id);
    EXPECT_EQ(again.session, next);
    ASSERT_TRUE(store_->Cancel("default", id).ok());
    registry_.Disconnected(next);
    again.done(kFitsHere);
    Settle();
  }
}

TEST_F(JudgeTest, JobThatFitsNowhereFailsThoughItsWorkerHasGone) {
  const SessionId session = Connect("w", 1);
  const std::string id = Submit();
  const Question question = AwaitAsked(1);
  registry_.Disconnected(session);
  question.done(kFitsNowhere);
  Settle();
  EXPECT_EQ(Read(id).state, JobState::kFailed);
}

TEST_F(JudgeTest, JobIsNotClaimedForAWorkerThatDrainsMeanwhile) {
  const SessionId session = Connect("w", 1);
  const std::string id = Submit();
  const Question question = AwaitAsked(1);
  ASSERT_TRUE(registry_.StartDraining(session).ok());
  question.done(kFitsHere);
  Settle();
  ExpectUntouched(id);
  EXPECT_EQ(asked(), 1u);
  EXPECT_EQ(reserved(), 0);
}

TEST_F(JudgeTest, OldAnswerDoesNotMarkTheNewSession) {
  const SessionId session = Connect("w", 1);
  const std::string id = Submit();
  const Question old = AwaitAsked(1);
  registry_.Disconnected(session);
  Connect("w", 1);
  old.done(kFitsElsewhere);
  const Question question = AwaitAsked(2);
  EXPECT_EQ(question.job_id, id);
  question.done(kFitsHere);
  AwaitStarted(1);
}

}  // namespace
}  // namespace kino::scheduler
