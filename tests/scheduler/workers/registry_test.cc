#include "scheduler/workers/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/status.h"
#include "tests/support/fake_clock.h"

namespace kino::scheduler {
namespace {

WorkerHello Hello(const std::string& name, int64_t process_id = 100,
                  std::vector<AttemptRef> held = {}) {
  return {.name = name,
          .process_id = process_id,
          .device = "cpu",
          .max_attempts = 1,
          .models = {{"ltx", false}},
          .held = std::move(held)};
}

class RegistryTest : public testing::Test {
 protected:
  SessionId Connect(const std::string& name, int64_t process_id = 100) {
    const auto hello = registry_.Hello(Hello(name, process_id));
    EXPECT_TRUE(hello.ok()) << hello.status();
    return hello->session;
  }
  // Gives the next free slot the attempt `ref`.
  void Give(const AttemptRef& ref, absl::Duration run_timeout = absl::InfiniteDuration()) {
    const auto slot = registry_.Reserve({});
    ASSERT_TRUE(slot);
    ASSERT_TRUE(registry_.Assign(*slot, ref, run_timeout).ok());
  }
  absl::Status Beat(SessionId session, int64_t progress = 0) {
    return registry_.Heartbeat(session, progress, {{"ltx", true}});
  }

  const AttemptRef a_{"job-a", 1, "token-a"}, b_{"job-b", 2, "token-b"};
  FakeClock clock_;
  WorkerRegistry registry_{LeaseOptions(), clock_};
};

TEST_F(RegistryTest, FreeSlotsAreReservedOnceEach) {
  WorkerHello hello = Hello("w");
  hello.max_attempts = 2;
  ASSERT_TRUE(registry_.Hello(hello).ok());
  const auto first = registry_.Reserve({});
  ASSERT_TRUE(first);
  EXPECT_EQ(first->worker.name, "w");
  EXPECT_THAT(first->worker.models, testing::ElementsAre("ltx"));
  EXPECT_FALSE(registry_.Reserve({"w"}));
  ASSERT_TRUE(registry_.Assign(*first, a_, absl::InfiniteDuration()).ok());
  const auto second = registry_.Reserve({});
  ASSERT_TRUE(second);
  EXPECT_FALSE(registry_.Reserve({}));
  registry_.CancelReservation(*second);
  Give(b_);
  EXPECT_FALSE(registry_.Reserve({}));
  registry_.Release(a_);
  EXPECT_TRUE(registry_.Reserve({}));
}

TEST_F(RegistryTest, IdlerWorkerComesFirst) {
  for (const char* name : {"b", "a"}) {
    WorkerHello hello = Hello(name);
    hello.max_attempts = 2;
    ASSERT_TRUE(registry_.Hello(hello).ok());
  }
  std::vector<std::string> order;
  for (int i = 0; i < 4; ++i) order.push_back(registry_.Reserve({})->worker.name);
  EXPECT_THAT(order, testing::ElementsAre("a", "b", "a", "b"));
}

TEST_F(RegistryTest, DrainingWorkerGetsNothingNew) {
  const SessionId session = Connect("w");
  const auto slot = registry_.Reserve({});
  ASSERT_TRUE(slot);
  ASSERT_TRUE(registry_.StartDraining(session).ok());
  EXPECT_TRUE(absl::IsAborted(registry_.Assign(*slot, a_, absl::Hours(1))));
  EXPECT_FALSE(registry_.Reserve({}));
}

TEST_F(RegistryTest, MalformedHelloIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(registry_.Hello(Hello("")).status()));
  WorkerHello hello = Hello("w");
  hello.max_attempts = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(registry_.Hello(hello).status()));
  EXPECT_TRUE(registry_.Snapshot().empty());
}

TEST_F(RegistryTest, SilentWorkerLosesItsAttemptsWhenTheLeaseEnds) {
  const SessionId session = Connect("w");
  Give(a_);
  EXPECT_EQ(registry_.NextDeadline(), clock_.Monotonic() + absl::Seconds(10));
  clock_.Advance(absl::Seconds(9));
  ASSERT_TRUE(Beat(session, 1).ok());
  clock_.Advance(absl::Seconds(9));
  EXPECT_TRUE(registry_.TakeLost().empty()) << "the heartbeat renewed the lease";
  clock_.Advance(absl::Seconds(1));
  const auto lost = registry_.TakeLost();
  ASSERT_EQ(lost.size(), 1u);
  EXPECT_EQ(lost[0].ref, a_);
  EXPECT_EQ(lost[0].worker, "w");
  EXPECT_EQ(lost[0].cause, FailureCause::kLeaseLost);
  EXPECT_EQ(lost[0].session, session);
  EXPECT_TRUE(absl::IsAborted(Beat(session))) << "it has to connect anew";
  EXPECT_TRUE(registry_.TakeLost().empty());
  EXPECT_EQ(registry_.NextDeadline(), absl::InfiniteDuration());
}

TEST_F(RegistryTest, WallClockJumpsLoseNoLease) {
  Connect("w");
  Give(a_);
  for (const absl::Duration jump : {absl::Hours(24) * 3650, -absl::Hours(24) * 7300}) {
    clock_.JumpWall(jump);
    EXPECT_TRUE(registry_.TakeLost().empty());
  }
  clock_.Advance(absl::Seconds(10));
  EXPECT_EQ(registry_.TakeLost().size(), 1u);
}

TEST_F(RegistryTest, DroppedConnectionIsForgivenWithinTheGrace) {
  const SessionId session = Connect("w");
  Give(a_);
  registry_.Disconnected(session);
  EXPECT_TRUE(IsStaleAttempt(registry_.Holder(a_).status()));
  clock_.Advance(absl::Seconds(14));
  EXPECT_TRUE(registry_.TakeLost().empty());
  const auto back = registry_.Hello(Hello("w", 100, {a_, b_}));
  ASSERT_TRUE(back.ok());
  EXPECT_THAT(back->resumed, testing::ElementsAre(a_));
  EXPECT_THAT(back->dropped, testing::ElementsAre(b_));
  EXPECT_TRUE(back->lost.empty());
  EXPECT_EQ(*registry_.Holder(a_), back->session);
  clock_.Advance(absl::Seconds(9));
  EXPECT_TRUE(registry_.TakeLost().empty());
  EXPECT_FALSE(registry_.Reserve({})) << "its slot is taken still";
}

TEST_F(RegistryTest, WorkerThatDoesNotComeBackLosesItsAttempts) {
  const SessionId session = Connect("w");
  Give(a_);
  registry_.Disconnected(session);
  clock_.Advance(absl::Seconds(15));
  const auto lost = registry_.TakeLost();
  ASSERT_EQ(lost.size(), 1u);
  EXPECT_EQ(lost[0].cause, FailureCause::kLeaseLost);
  EXPECT_EQ(lost[0].session, 0);
  const auto back = registry_.Hello(Hello("w", 100, {a_}));
  EXPECT_THAT(back->dropped, testing::ElementsAre(a_)) << "too late";
}

TEST_F(RegistryTest, IdleWorkerThatDisconnectsIsForgottenAtOnce) {
  registry_.Disconnected(Connect("w"));
  EXPECT_TRUE(registry_.Snapshot().empty());
}

TEST_F(RegistryTest, HelloReplacesTheOldSession) {
  const SessionId first = Connect("w");
  Give(a_);
  const auto second = registry_.Hello(Hello("w", 100, {a_}));
  ASSERT_TRUE(second.ok());
  EXPECT_TRUE(absl::IsAborted(Beat(first)));
  EXPECT_TRUE(absl::IsAborted(registry_.StartDraining(first)));
  registry_.Disconnected(first);
  EXPECT_EQ(*registry_.Holder(a_), second->session) << "the old stream's end means nothing";
}

TEST_F(RegistryTest, ReservationOfAReplacedSessionIsVoid) {
  Connect("w");
  const auto slot = registry_.Reserve({});
  Connect("w");
  EXPECT_TRUE(absl::IsAborted(registry_.Assign(*slot, a_, absl::Hours(1))));
  registry_.CancelReservation(*slot);
  EXPECT_TRUE(registry_.Reserve({}));
}

TEST_F(RegistryTest, RestartedWorkerHasCrashedWithItsAttempt) {
  Connect("w", 100);
  Give(a_);
  const auto back = registry_.Hello(Hello("w", 101));
  ASSERT_EQ(back->lost.size(), 1u);
  EXPECT_EQ(back->lost[0].ref, a_);
  EXPECT_EQ(back->lost[0].cause, FailureCause::kCrash);
}

TEST_F(RegistryTest, SameProcessWithoutTheAttemptNeverGotIt) {
  Connect("w", 100);
  Give(a_);
  const auto back = registry_.Hello(Hello("w", 100));
  ASSERT_EQ(back->lost.size(), 1u);
  EXPECT_EQ(back->lost[0].cause, FailureCause::kInterrupted);
}

TEST_F(RegistryTest, KnownDeathLosesAttemptsAtOnce) {
  Connect("w", 100);
  Give(a_);
  const auto lost = registry_.WorkerEnded("w", 100, FailureCause::kCrash, "killed by signal 11");
  ASSERT_EQ(lost.size(), 1u);
  EXPECT_EQ(lost[0].cause, FailureCause::kCrash);
  EXPECT_EQ(lost[0].reason, "killed by signal 11");
  EXPECT_TRUE(registry_.WorkerEnded("w", 100, FailureCause::kCrash, "again").empty());
}

TEST_F(RegistryTest, LateNoticeOfADeathDoesNotTouchTheSuccessor) {
  Connect("w", 100);
  const SessionId session = Connect("w", 101);
  Give(a_);
  EXPECT_TRUE(registry_.WorkerEnded("w", 100, FailureCause::kCrash, "x").empty());
  EXPECT_EQ(*registry_.Holder(a_), session);
}

TEST_F(RegistryTest, WorkerWithoutProgressHangs) {
  LeaseOptions options;
  options.stall_limit = absl::Seconds(30);
  WorkerRegistry registry(options, clock_);
  const SessionId session = registry.Hello(Hello("w"))->session;
  const auto beat_for = [&](int seconds, int64_t progress_step) {
    std::vector<LostAttempt> lost;
    for (int i = 0; i < seconds && lost.empty(); ++i) {
      clock_.Advance(absl::Seconds(1));
      if (!registry.Heartbeat(session, i * progress_step, {}).ok()) break;
      lost = registry.TakeLost();
    }
    return lost;
  };
  EXPECT_TRUE(beat_for(100, 0).empty()) << "an idle worker need not progress";
  ASSERT_TRUE(registry.Assign(*registry.Reserve({}), a_, absl::InfiniteDuration()).ok());
  EXPECT_TRUE(beat_for(100, 1).empty());
  const auto lost = beat_for(40, 0);
  ASSERT_EQ(lost.size(), 1u);
  EXPECT_EQ(lost[0].cause, FailureCause::kHang);
}

TEST_F(RegistryTest, RunTimeoutTakesOneAttemptAndKeepsTheWorker) {
  const SessionId session = Connect("w");
  Give(a_, absl::Seconds(60));
  std::vector<LostAttempt> lost;
  int seconds = 0;
  for (; lost.empty() && seconds < 200; ++seconds) {
    clock_.Advance(absl::Seconds(1));
    ASSERT_TRUE(Beat(session, seconds).ok());
    lost = registry_.TakeLost();
  }
  EXPECT_EQ(seconds, 75) << "run_timeout and its slack";
  ASSERT_EQ(lost.size(), 1u);
  EXPECT_EQ(lost[0].cause, FailureCause::kRunTimeout);
  EXPECT_EQ(lost[0].session, session);
  EXPECT_TRUE(Beat(session).ok());
  EXPECT_TRUE(registry_.Reserve({}));
}

TEST_F(RegistryTest, AdoptedAttemptIsTakenUpByTheWorkerThatProvesItsToken) {
  registry_.Adopt({{.ref = a_, .worker = "w"}, {.ref = b_, .worker = "v"}});
  const AttemptRef forged{a_.job_id, a_.attempt, "guess"};
  const auto thief = registry_.Hello(Hello("v", 7, {forged}));
  EXPECT_TRUE(thief->resumed.empty());
  EXPECT_THAT(thief->dropped, testing::ElementsAre(forged));
  ASSERT_EQ(thief->lost.size(), 1u);
  EXPECT_EQ(thief->lost[0].ref, b_);
  EXPECT_EQ(thief->lost[0].cause, FailureCause::kLeaseLost);
  clock_.Advance(absl::Seconds(5));
  EXPECT_THAT(registry_.Hello(Hello("w", 8, {a_}))->resumed, testing::ElementsAre(a_));
}

TEST_F(RegistryTest, AdoptedAttemptIsLostAfterTheGrace) {
  registry_.Adopt({{.ref = a_, .worker = "w"}});
  EXPECT_EQ(registry_.NextDeadline(), clock_.Monotonic() + absl::Seconds(15));
  clock_.Advance(absl::Seconds(15));
  ASSERT_EQ(registry_.TakeLost().size(), 1u);
  EXPECT_TRUE(registry_.Snapshot().empty());
}

TEST_F(RegistryTest, AdoptedAttemptOfADeadWorkerIsLostWithTheNotice) {
  registry_.Adopt({{.ref = a_, .worker = "w"}});
  EXPECT_EQ(registry_.WorkerEnded("w", 55, FailureCause::kCrash, "x").size(), 1u);
}

TEST_F(RegistryTest, LossThatCouldNotBeStoredComesAgain) {
  registry_.GiveBack({.ref = a_, .worker = "w", .cause = FailureCause::kCrash, .reason = "r"});
  EXPECT_TRUE(registry_.TakeLost().empty());
  EXPECT_EQ(registry_.NextDeadline(), clock_.Monotonic() + absl::Seconds(1));
  clock_.Advance(absl::Seconds(1));
  const auto lost = registry_.TakeLost();
  ASSERT_EQ(lost.size(), 1u);
  EXPECT_EQ(lost[0].ref, a_);
  EXPECT_EQ(lost[0].cause, FailureCause::kCrash);
  EXPECT_TRUE(registry_.TakeLost().empty());
}

TEST_F(RegistryTest, SnapshotTellsWhoHoldsWhat) {
  const SessionId session = Connect("w");
  Give(a_);
  ASSERT_TRUE(Beat(session).ok());
  Connect("a");
  const auto workers = registry_.Snapshot();
  ASSERT_EQ(workers.size(), 2u);
  EXPECT_EQ(workers[0].name, "a");
  EXPECT_EQ(workers[1].name, "w");
  EXPECT_EQ(workers[1].session, session);
  EXPECT_EQ(workers[1].device, "cpu");
  EXPECT_THAT(workers[1].held, testing::ElementsAre(a_));
  ASSERT_EQ(workers[1].models.size(), 1u);
  EXPECT_TRUE(workers[1].models[0].loaded);
}

}  // namespace
}  // namespace kino::scheduler
