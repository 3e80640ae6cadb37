#include "server/worker/held_attempts.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "server/worker/attempt_failure.h"
#include "tests/scheduler/files/simulated_disk.h"
#include "tests/support/temp_dir.h"

namespace kino::worker {
namespace {

v1::StartAttempt Command(const std::string& job, int attempt = 1, const std::string& token = "t") {
  v1::StartAttempt command;
  command.mutable_ref()->set_job_id(job);
  command.mutable_ref()->set_attempt(attempt);
  command.mutable_ref()->set_token(token);
  return command;
}

v1::AttemptEvent Event(bool last) {
  v1::AttemptEvent event;
  last ? (void)event.mutable_done() : (void)event.mutable_started();
  return event;
}

v1::AttemptAck Ack(const v1::StartAttempt& command, int64_t number) {
  v1::AttemptAck ack;
  *ack.mutable_ref() = command.ref();
  ack.set_number(number);
  return ack;
}

class HeldAttemptsTest : public ::testing::Test {
 protected:
  kino::testing::TempDir folder_;
  scheduler::SimulatedDisk disk_;
  HeldAttempts held_{disk_, folder_.path()};

  // "job:number", or "" when nothing is to be sent.
  std::string Next() {
    const std::optional<v1::AttemptEvent> event = held_.NextToSend();
    return event ? event->ref().job_id() + ":" + std::to_string(event->number()) : "";
  }
};

TEST_F(HeldAttemptsTest, OnlyTheWholeReferenceMatches) {
  ASSERT_TRUE(held_.Add(Command("a", 1, "right")).ok());
  EXPECT_NE(held_.Find(Command("a", 1, "right").ref()), nullptr);
  EXPECT_EQ(held_.Find(Command("a", 1, "wrong").ref()), nullptr);
  EXPECT_EQ(held_.Find(Command("a", 2, "right").ref()), nullptr);
  EXPECT_EQ(held_.Find(Command("b", 1, "right").ref()), nullptr);
  EXPECT_TRUE(absl::IsAlreadyExists(held_.Add(Command("a", 1, "right")).status()));
}

TEST_F(HeldAttemptsTest, EventsGoOutOnceInOrderThenProgress) {
  auto attempt = *held_.Add(Command("a"));
  attempt->SetProgress(v1::Progress());
  ASSERT_TRUE(attempt->spool().Append(Event(false)).ok());
  ASSERT_TRUE(attempt->spool().Append(Event(false)).ok());
  EXPECT_EQ(Next(), "a:1");
  EXPECT_EQ(Next(), "a:2");
  EXPECT_EQ(Next(), "a:0");
  EXPECT_EQ(Next(), "");
}

TEST_F(HeldAttemptsTest, ProgressOfAnEndedAttemptIsNotSent) {
  auto attempt = *held_.Add(Command("a"));
  attempt->SetProgress(v1::Progress());
  attempt->MarkEnded();
  EXPECT_EQ(Next(), "");
}

TEST_F(HeldAttemptsTest, ResumeSendsAgainWhatWasNotAcknowledgedAndDropsTheRest) {
  const v1::StartAttempt a = Command("a"), b = Command("b");
  auto kept = *held_.Add(a);
  auto lost = *held_.Add(b);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(kept->spool().Append(Event(false)).ok());
    ASSERT_TRUE(lost->spool().Append(Event(false)).ok());
  }
  while (!Next().empty()) {
  }
  google::protobuf::RepeatedPtrField<v1::AttemptAck> resumed;
  *resumed.Add() = Ack(a, 1);
  held_.Resume(resumed);
  EXPECT_EQ(Next(), "a:2");
  EXPECT_EQ(Next(), "a:3");
  EXPECT_EQ(Next(), "");
  EXPECT_EQ(lost->stop_reason(), StopReason::kDropped);
  EXPECT_TRUE(lost->token().cancelled());
  EXPECT_FALSE(kept->token().cancelled());
}

TEST_F(HeldAttemptsTest, AnAttemptIsForgottenWithItsLastAcknowledgement) {
  const v1::StartAttempt a = Command("a");
  auto attempt = *held_.Add(a);
  ASSERT_TRUE(attempt->spool().Append(Event(false)).ok());
  // The mark comes before the last event: an acknowledgement between the two must not forget it.
  attempt->MarkEnded();
  EXPECT_EQ(held_.active(), 0);
  held_.Acknowledge(Ack(a, 1));
  EXPECT_FALSE(held_.empty());
  ASSERT_TRUE(attempt->spool().Append(Event(true)).ok());
  held_.Acknowledge(Ack(a, 2));
  EXPECT_TRUE(held_.empty());
}

TEST_F(HeldAttemptsTest, TheStrongestReasonToStopCounts) {
  auto attempt = *held_.Add(Command("a"));
  attempt->Stop(StopReason::kInterrupted);
  attempt->Stop(StopReason::kCancelled);
  EXPECT_EQ(attempt->stop_reason(), StopReason::kInterrupted);
  held_.Drop(attempt->ref());
  EXPECT_EQ(attempt->stop_reason(), StopReason::kDropped);
  EXPECT_TRUE(held_.empty());
}

constexpr absl::Duration kNow = absl::Seconds(5000);

TEST_F(HeldAttemptsTest, RunTimeoutCountsFromTheBeginningOfTheRun) {
  v1::StartAttempt command = Command("a");
  command.mutable_run_timeout()->set_seconds(60);
  auto attempt = *held_.Add(command);
  auto unlimited = *held_.Add(Command("b"));
  held_.StopOverdue(kNow + absl::Hours(24));
  EXPECT_EQ(attempt->stop_reason(), StopReason::kNone) << "it has not begun";
  ASSERT_TRUE(attempt->Begin(kNow));
  ASSERT_TRUE(unlimited->Begin(kNow));
  held_.StopOverdue(kNow + absl::Seconds(60));
  EXPECT_EQ(attempt->stop_reason(), StopReason::kNone);
  held_.StopOverdue(kNow + absl::Seconds(61));
  EXPECT_EQ(attempt->stop_reason(), StopReason::kTimedOut);
  EXPECT_TRUE(attempt->token().cancelled());
  EXPECT_EQ(unlimited->stop_reason(), StopReason::kNone);
}

TEST_F(HeldAttemptsTest, ACancelThatTakesLongIsNoTimeout) {
  v1::StartAttempt command = Command("a");
  command.mutable_run_timeout()->set_seconds(60);
  auto attempt = *held_.Add(command);
  ASSERT_TRUE(attempt->Begin(kNow));
  held_.Stop(attempt->ref(), StopReason::kCancelled);
  held_.StopOverdue(kNow + absl::Seconds(61));
  EXPECT_EQ(attempt->stop_reason(), StopReason::kCancelled);
}

// The one numbered event of an attempt that ended while it waited.
v1::AttemptFailed OnlyEvent(HeldAttempt& attempt) {
  EXPECT_EQ(attempt.spool().last_number(), 1);
  auto event = attempt.spool().Next(0);
  EXPECT_TRUE(event.ok() && event->has_value());
  return event.ok() && event->has_value() ? (*event)->failed() : v1::AttemptFailed();
}

TEST_F(HeldAttemptsTest, AWaitingAttemptEndsWhereItIsStopped) {
  for (const auto& [reason, cause] :
       {std::pair(StopReason::kCancelled, v1::AttemptFailed::CANCELLED_BY_US),
        std::pair(StopReason::kInterrupted, v1::AttemptFailed::INTERRUPTED)}) {
    SCOPED_TRACE(v1::AttemptFailed::Cause_Name(cause));
    auto attempt = *held_.Add(Command(v1::AttemptFailed::Cause_Name(cause)));
    held_.Stop(attempt->ref(), reason);
    EXPECT_TRUE(attempt->ended());
    EXPECT_EQ(held_.active(), 0);
    EXPECT_EQ(OnlyEvent(*attempt).cause(), cause);
    EXPECT_FALSE(attempt->Begin(kNow)) << "the engine thread is to pass it over";
    // Whoever stops it again adds no second end.
    held_.Stop(attempt->ref(), reason);
    held_.StopAll(StopReason::kInterrupted);
    EXPECT_EQ(attempt->spool().last_number(), 1);
  }
}

TEST_F(HeldAttemptsTest, AnAttemptThatHasBegunIsEndedByTheEngineThreadAlone) {
  auto attempt = *held_.Add(Command("a"));
  ASSERT_TRUE(attempt->Begin(kNow));
  EXPECT_FALSE(attempt->Begin(kNow));
  held_.Stop(attempt->ref(), StopReason::kCancelled);
  EXPECT_FALSE(attempt->ended());
  EXPECT_EQ(attempt->spool().last_number(), 0);
  EXPECT_FALSE(attempt->EndWaiting());
}

TEST_F(HeldAttemptsTest, ADroppedWaitingAttemptIsPassedOver) {
  auto attempt = *held_.Add(Command("a"));
  held_.Drop(attempt->ref());
  EXPECT_TRUE(attempt->token().cancelled());
  EXPECT_FALSE(attempt->Begin(kNow));
}

// Of one canceller and one engine thread, one gets the attempt, whoever is first.
TEST_F(HeldAttemptsTest, CancelAndBeginAtOnceGiveOneEnd) {
  for (int i = 0; i < 300; ++i) {
    auto attempt = *held_.Add(Command("a", i + 1));
    bool began = false;
    std::thread engine([&] { began = attempt->Begin(kNow); });
    held_.Stop(attempt->ref(), StopReason::kCancelled);
    engine.join();
    EXPECT_NE(began, attempt->ended());
    EXPECT_EQ(attempt->spool().last_number(), began ? 0 : 1);
    EXPECT_TRUE(attempt->token().cancelled());
    held_.Drop(attempt->ref());
  }
}

TEST_F(HeldAttemptsTest, AnAttemptWhoseSpoolCannotBeMadeIsHeldAndCanTell) {
  HeldAttempts held(disk_, "/nonexistent");
  auto attempt = held.Add(Command("a"));
  ASSERT_TRUE(attempt.ok()) << attempt.status();
  EXPECT_NE(std::string((*attempt)->spool().status().message()).find("/nonexistent/1.spool"),
            std::string::npos);
  EXPECT_TRUE(FailWaitingAttempt(**attempt, SpoolFailure((*attempt)->spool().status())));
  const auto event = held.NextToSend();
  ASSERT_TRUE(event.has_value());
  EXPECT_EQ(event->ref().job_id(), "a");
  EXPECT_EQ(event->failed().cause(), v1::AttemptFailed::INTERNAL);
  held.Acknowledge(Ack(Command("a"), 1));
  EXPECT_TRUE(held.empty());
}

// Two chunks, of which the second cannot be read back.
void SpoolTwoChunks(HeldAttempt& attempt) {
  ASSERT_TRUE(attempt.Begin(kNow));
  for (int i = 0; i < 2; ++i) {
    v1::AttemptEvent event;
    event.mutable_chunk()->set_offset(i);
    event.mutable_chunk()->set_data("x");
    ASSERT_TRUE(attempt.spool().Append(event).ok());
  }
}

TEST_F(HeldAttemptsTest, ARunWhoseSpoolCannotBeReadBackIsStoppedAndFails) {
  auto attempt = *held_.Add(Command("a"));
  SpoolTwoChunks(*attempt);
  EXPECT_EQ(Next(), "a:1");
  disk_.PlanFault({.calls = {scheduler::DiskCall::kRead}, .error = EIO});
  EXPECT_EQ(Next(), "") << "its end is the engine thread's to tell";
  EXPECT_TRUE(attempt->token().cancelled());
  EXPECT_EQ(disk_.faults_struck(), 1);
  const std::optional<Failure> failure = StopFailure(*attempt);
  ASSERT_TRUE(failure.has_value());
  EXPECT_EQ(failure->cause, v1::AttemptFailed::INTERNAL);
  // The run ends well all the same: what it made is lost.
  attempt->MarkEnded();
  EXPECT_EQ(attempt->spool().Append(Event(true)), failure->error);
  FailAttempt(*attempt, *failure, {});
  const auto event = held_.NextToSend();
  ASSERT_TRUE(event.has_value());
  EXPECT_EQ(event->number(), 2);
  EXPECT_EQ(event->failed().cause(), v1::AttemptFailed::INTERNAL);
  held_.Acknowledge(Ack(Command("a"), 2));
  EXPECT_TRUE(held_.empty());
}

TEST_F(HeldAttemptsTest, AnEndedAttemptWhoseSpoolCannotBeReadBackFailsToo) {
  for (const auto& [error, cause] : {std::pair(EIO, v1::AttemptFailed::INTERNAL),
                                     std::pair(EMFILE, v1::AttemptFailed::SHORTAGE)}) {
    SCOPED_TRACE(v1::AttemptFailed::Cause_Name(cause));
    auto attempt = *held_.Add(Command("a"));
    SpoolTwoChunks(*attempt);
    attempt->MarkEnded();
    ASSERT_TRUE(attempt->spool().Append(Event(true)).ok());
    while (!Next().empty()) {
    }
    // The stream broke, and the frontend has the first.
    google::protobuf::RepeatedPtrField<v1::AttemptAck> resumed;
    *resumed.Add() = Ack(Command("a"), 1);
    held_.Resume(resumed);
    disk_.PlanFault({.calls = {scheduler::DiskCall::kRead}, .error = error});
    const auto event = held_.NextToSend();
    ASSERT_TRUE(event.has_value());
    EXPECT_EQ(event->number(), 2);
    EXPECT_EQ(event->failed().cause(), cause);
    EXPECT_EQ(Next(), "");
    held_.Acknowledge(Ack(Command("a"), 2));
    EXPECT_TRUE(held_.empty());
  }
}

TEST_F(HeldAttemptsTest, PulsesAreOfAttemptsThatHaveNotEnded) {
  auto waiting = *held_.Add(Command("waiting"));
  auto loading = *held_.Add(Command("loading"));
  auto ended = *held_.Add(Command("ended"));
  ended->MarkEnded();
  loading->pulse().Enter(v1::LOAD);
  loading->pulse().work().Count();
  const std::vector<v1::AttemptPulse> pulses = held_.Pulses();
  ASSERT_EQ(pulses.size(), 2u);
  EXPECT_EQ(pulses[0].ref().job_id(), "waiting");
  EXPECT_EQ(pulses[0].ref().token(), "t");
  EXPECT_EQ(pulses[0].stage(), v1::STAGE_UNSPECIFIED);
  EXPECT_EQ(pulses[0].counter(), 0);
  EXPECT_EQ(pulses[1].ref().job_id(), "loading");
  EXPECT_EQ(pulses[1].stage(), v1::LOAD);
  EXPECT_EQ(pulses[1].counter(), 1);
}

TEST_F(HeldAttemptsTest, AnotherDeadlineThanRunTimeoutIsNotToldAsOne) {
  auto attempt = *held_.Add(Command("a"));
  FailWaitingAttempt(*attempt,
                     {v1::AttemptFailed::INTERNAL, absl::DeadlineExceededError("a slow decoder")});
  EXPECT_EQ(OnlyEvent(*attempt).error().code(), 14);
  EXPECT_EQ(OnlyEvent(*attempt).error().message(), "a slow decoder");
  auto late = *held_.Add(Command("b"));
  FailWaitingAttempt(*late, {v1::AttemptFailed::RUN_TIMEOUT, absl::DeadlineExceededError("late")});
  EXPECT_EQ(OnlyEvent(*late).error().code(), 4);
}

}  // namespace
}  // namespace kino::worker
