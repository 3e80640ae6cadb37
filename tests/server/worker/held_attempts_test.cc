#include "server/worker/held_attempts.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "absl/time/clock.h"

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
  HeldAttemptsTest() { std::filesystem::create_directories(folder_); }
  const std::string folder_ = testing::TempDir() + "/held";
  HeldAttempts held_{folder_};

  // "job:number", or "" when nothing is to be sent.
  std::string Next() {
    auto event = held_.NextToSend();
    EXPECT_TRUE(event.ok());
    if (!event.ok() || !event->has_value()) return "";
    return (*event)->ref().job_id() + ":" + std::to_string((*event)->number());
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

TEST_F(HeldAttemptsTest, RunTimeoutCountsFromTheBeginningOfTheRun) {
  v1::StartAttempt command = Command("a");
  command.mutable_run_timeout()->set_seconds(60);
  auto attempt = *held_.Add(command);
  auto unlimited = *held_.Add(Command("b"));
  const absl::Time now = absl::Now();
  held_.StopOverdue(now + absl::Hours(24));
  EXPECT_EQ(attempt->stop_reason(), StopReason::kNone) << "it has not begun";
  attempt->MarkBegun(now);
  unlimited->MarkBegun(now);
  held_.StopOverdue(now + absl::Seconds(59));
  EXPECT_EQ(attempt->stop_reason(), StopReason::kNone);
  held_.StopOverdue(now + absl::Seconds(61));
  EXPECT_EQ(attempt->stop_reason(), StopReason::kTimedOut);
  EXPECT_EQ(unlimited->stop_reason(), StopReason::kNone);
}

}  // namespace
}  // namespace kino::worker
