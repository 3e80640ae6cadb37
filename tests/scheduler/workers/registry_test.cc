#include "scheduler/workers/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

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
WorkerHello HelloWithSlots(const std::string& name, int slots) {
  WorkerHello hello = Hello(name);
  hello.max_attempts = slots;
  return hello;
}

constexpr int kStageDenoise = 3;  // one that is neither waiting nor loading

class RegistryTest : public testing::Test {
 protected:
  SessionId Connect(const WorkerHello& hello) {
    const auto result = registry_.Hello(hello);
    EXPECT_TRUE(result.ok()) << result.status();
    return result->session;
  }
  SessionId Connect(const std::string& name, int64_t process_id = 100) {
    return Connect(Hello(name, process_id));
  }
  void Give(const std::string& worker, const AttemptRef& ref,
            absl::Duration run_timeout = absl::InfiniteDuration()) {
    const auto slot = registry_.Reserve(worker);
    ASSERT_TRUE(slot);
    ASSERT_TRUE(registry_.Assign(*slot, ref, run_timeout).ok());
  }
  absl::Status Beat(SessionId session, const std::vector<AttemptPulse>& pulses = {}) {
    return registry_.Heartbeat(session, pulses, {{"ltx", true}});
  }
  // Time passes, and somebody looks twice a second, as promised. Stops at the first loss.
  std::vector<LostAttempt> Pass(
      absl::Duration duration, const std::function<void()>& each_second = [] {}) {
    std::vector<LostAttempt> lost = registry_.TakeLost();
    for (int i = 0; lost.empty() && i < duration / absl::Milliseconds(500); ++i) {
      clock_.Advance(absl::Milliseconds(500));
      if (i % 2 == 1) each_second();
      lost = registry_.TakeLost();
    }
    return lost;
  }
  // How long it takes until something is lost.
  absl::Duration TimeUntilLost(const std::function<void()>& each_second = [] {}) {
    const absl::Duration begin = clock_.Monotonic();
    last_lost_ = Pass(absl::Hours(24), each_second);
    return last_lost_.empty() ? absl::InfiniteDuration() : clock_.Monotonic() - begin;
  }
  bool IsReady(const std::string& name) {
    for (const ReadyWorker& worker : registry_.Ready()) {
      if (worker.name == name) return true;
    }
    return false;
  }

  const AttemptRef a_{"job-a", 1, "token-a"}, b_{"job-b", 2, "token-b"};
  FakeClock clock_;
  WorkerRegistry registry_{LeaseOptions(), clock_};
  std::vector<LostAttempt> last_lost_;
};

// --- Slots. ---

TEST_F(RegistryTest, FreeSlotsAreReservedOnceEach) {
  Connect(HelloWithSlots("w", 2));
  const auto first = registry_.Reserve("w");
  ASSERT_TRUE(first);
  EXPECT_EQ(first->worker.name, "w");
  EXPECT_EQ(first->process_id, 100);
  EXPECT_THAT(first->worker.models, testing::ElementsAre("ltx"));
  EXPECT_FALSE(registry_.Reserve("v"));
  ASSERT_TRUE(registry_.Assign(*first, a_, absl::InfiniteDuration()).ok());
  const auto second = registry_.Reserve("w");
  ASSERT_TRUE(second);
  EXPECT_FALSE(registry_.Reserve("w"));
  EXPECT_TRUE(registry_.Ready().empty());
  registry_.CancelReservation(*second);
  Give("w", b_);
  EXPECT_FALSE(registry_.Reserve("w"));
  registry_.Release(a_);
  EXPECT_TRUE(registry_.Reserve("w"));
}

TEST_F(RegistryTest, ReadyWorkersSayWhatThePolicyNeeds) {
  WorkerHello hello = HelloWithSlots("b", 3);
  hello.models = {{"ltx", true}, {"mochi", false}};
  Connect(hello);
  Connect("a");
  Give("b", a_);
  const auto slot = registry_.Reserve("b");
  registry_.MarkUnfit(*slot, "job-x");
  const auto ready = registry_.Ready();
  ASSERT_EQ(ready.size(), 2u);
  EXPECT_EQ(ready[0].name, "a");
  EXPECT_EQ(ready[0].attempts, 0);
  EXPECT_THAT(ready[0].loaded, testing::IsEmpty());
  EXPECT_EQ(ready[1].name, "b");
  EXPECT_EQ(ready[1].attempts, 2) << "what it holds, and what it is about to get";
  EXPECT_THAT(ready[1].models, testing::ElementsAre("ltx", "mochi"));
  EXPECT_THAT(ready[1].loaded, testing::ElementsAre("ltx"));
  EXPECT_THAT(ready[1].unfit_jobs, testing::ElementsAre("job-x"));
}

TEST_F(RegistryTest, HeartbeatSaysWhichModelsAreLoaded) {
  const SessionId session = Connect("w");
  EXPECT_THAT(registry_.Ready().at(0).loaded, testing::IsEmpty());
  ASSERT_TRUE(Beat(session).ok());
  EXPECT_THAT(registry_.Ready().at(0).loaded, testing::ElementsAre("ltx"));
}

TEST_F(RegistryTest, DrainingWorkerGetsNothingNew) {
  const SessionId session = Connect("w");
  const auto slot = registry_.Reserve("w");
  ASSERT_TRUE(slot);
  EXPECT_TRUE(registry_.CanAssign(*slot));
  ASSERT_TRUE(registry_.StartDraining(session).ok());
  EXPECT_FALSE(registry_.CanAssign(*slot));
  EXPECT_TRUE(absl::IsAborted(registry_.Assign(*slot, a_, absl::Hours(1))));
  EXPECT_FALSE(registry_.Reserve("w"));
  EXPECT_EQ(registry_.Snapshot().at(0).reserved, 0);
}

TEST_F(RegistryTest, WorkerOnADeviceThatIsOutGetsNothingNewAndKeepsWhatItHas) {
  WorkerHello hello = HelloWithSlots("w", 3);
  hello.device = "cuda:0";
  const SessionId session = Connect(hello);
  hello = Hello("v");
  hello.device = "cuda:1";
  Connect(hello);
  Give("w", a_);
  const auto slot = registry_.Reserve("w");
  registry_.SetOut("cuda:0", true);
  EXPECT_FALSE(IsReady("w"));
  EXPECT_TRUE(IsReady("v"));
  EXPECT_FALSE(registry_.Reserve("w"));
  EXPECT_FALSE(registry_.CanAssign(*slot));
  EXPECT_TRUE(absl::IsAborted(registry_.Assign(*slot, b_, absl::Hours(1))));
  EXPECT_EQ(*registry_.Holder(a_), session);
  EXPECT_TRUE(registry_.Snapshot().at(1).is_out);
  EXPECT_FALSE(registry_.Snapshot().at(0).is_out);
  registry_.SetOut("cuda:0", true);
  registry_.SetOut("cuda:0", false);
  EXPECT_TRUE(IsReady("w"));
  EXPECT_FALSE(registry_.Snapshot().at(1).is_out);
}

TEST_F(RegistryTest, WorkerThatComesWhileItsDeviceIsOutIsOut) {
  registry_.SetOut("cpu", true);
  Connect("w");
  EXPECT_FALSE(IsReady("w"));
  registry_.SetOut("cpu", false);
  EXPECT_TRUE(IsReady("w"));
}

TEST_F(RegistryTest, ReservationOfAReplacedSessionIsVoid) {
  Connect("w");
  const auto slot = registry_.Reserve("w");
  Connect("w");
  EXPECT_FALSE(registry_.CanAssign(*slot));
  EXPECT_TRUE(absl::IsAborted(registry_.Assign(*slot, a_, absl::Hours(1))));
  registry_.CancelReservation(*slot);
  EXPECT_EQ(registry_.Snapshot().at(0).reserved, 0);
  EXPECT_TRUE(registry_.Reserve("w"));
}

TEST_F(RegistryTest, ReservationsEndWithTheConnection) {
  const SessionId session = Connect(HelloWithSlots("w", 2));
  Give("w", a_);
  const auto slot = registry_.Reserve("w");
  registry_.Disconnected(session);
  EXPECT_EQ(registry_.Snapshot().at(0).reserved, 0);
  EXPECT_TRUE(absl::IsAborted(registry_.Assign(*slot, b_, absl::Hours(1))));
  registry_.CancelReservation(*slot);
  EXPECT_EQ(registry_.Snapshot().at(0).reserved, 0);
}

// --- Unfit jobs. ---

TEST_F(RegistryTest, MarkHoldsUntilTheJobEndsOrTheWorkersChange) {
  Connect(HelloWithSlots("w", 2));
  const auto slot = registry_.Reserve("w");
  registry_.MarkUnfit(*slot, "x");
  EXPECT_TRUE(registry_.IsUnfit(*slot, "x"));
  EXPECT_FALSE(registry_.IsUnfit(*slot, "y"));
  EXPECT_FALSE(registry_.ForgetUnfit("x")) << "the worker was not full";
  EXPECT_FALSE(registry_.IsUnfit(*slot, "x"));
  registry_.MarkUnfit(*slot, "x");
  Connect("v");
  EXPECT_FALSE(registry_.IsUnfit(*slot, "x"));
  registry_.MarkUnfit(*slot, "x");
  EXPECT_FALSE(registry_.IsUnfit(*slot, "x")) << "judged among other workers";
}

TEST_F(RegistryTest, MarksEndWhenAWorkerIsLost) {
  const SessionId session = Connect("w");
  const auto beat = [&] { EXPECT_TRUE(registry_.Heard(session).ok()); };
  const auto mark = [&] {
    const auto slot = registry_.Reserve("w");
    registry_.MarkUnfit(*slot, "x");
    EXPECT_TRUE(registry_.IsUnfit(*slot, "x"));
    registry_.CancelReservation(*slot);
  };
  const auto is_marked = [&] { return !registry_.Ready().at(0).unfit_jobs.empty(); };
  Connect("a-silent");
  ASSERT_EQ(registry_.Ready().size(), 2u);
  mark();
  EXPECT_TRUE(Pass(absl::Seconds(10), beat).empty()) << "it held nothing";
  ASSERT_EQ(registry_.Ready().size(), 1u);
  EXPECT_FALSE(is_marked()) << "where the job was to go, there is nobody now";
  // One that may come back counts as a worker until its grace is over, or it has nothing left.
  for (const bool is_released : {false, true}) {
    const SessionId away = Connect("a-way");
    Give("a-way", a_);
    registry_.Disconnected(away);
    mark();
    if (is_released) {
      registry_.Release(a_);
    } else {
      EXPECT_EQ(Pass(absl::Seconds(15), beat).size(), 1u);
    }
    ASSERT_EQ(registry_.Ready().size(), 1u);
    EXPECT_FALSE(is_marked());
  }
}

TEST_F(RegistryTest, WorkerWithTooManyUnfitJobsIsNotReady) {
  Connect(HelloWithSlots("w", 2));
  const auto slot = registry_.Reserve("w");
  for (size_t i = 0; i < kMaxUnfitJobs; ++i) {
    EXPECT_TRUE(IsReady("w")) << i;
    registry_.MarkUnfit(*slot, std::to_string(i));
  }
  EXPECT_FALSE(IsReady("w"));
  EXPECT_FALSE(registry_.Reserve("w"));
  EXPECT_TRUE(registry_.CanAssign(*slot)) << "what was reserved before";
  EXPECT_FALSE(registry_.ForgetUnfit("unknown"));
  EXPECT_TRUE(registry_.ForgetUnfit("7"));
  EXPECT_TRUE(IsReady("w"));
}

// --- Leases. ---

TEST_F(RegistryTest, MalformedHelloIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(registry_.Hello(Hello("")).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(registry_.Hello(HelloWithSlots("w", 0)).status()));
  EXPECT_TRUE(registry_.Snapshot().empty());
}

TEST_F(RegistryTest, SilentWorkerLosesItsAttemptsWhenTheLeaseEnds) {
  const SessionId session = Connect("w");
  Give("w", a_);
  EXPECT_TRUE(Pass(absl::Seconds(9)).empty());
  ASSERT_TRUE(Beat(session).ok());
  EXPECT_TRUE(Pass(absl::Seconds(9.5)).empty()) << "the heartbeat renewed the lease";
  const auto lost = Pass(absl::Seconds(0.5));
  ASSERT_EQ(lost.size(), 1u);
  EXPECT_EQ(lost[0].ref, a_);
  EXPECT_EQ(lost[0].worker, "w");
  EXPECT_EQ(lost[0].cause, FailureCause::kLeaseLost);
  EXPECT_EQ(lost[0].session, session);
  EXPECT_TRUE(absl::IsAborted(Beat(session))) << "it has to connect anew";
  EXPECT_TRUE(absl::IsAborted(registry_.Heard(session)));
  EXPECT_TRUE(registry_.Snapshot().empty());
  EXPECT_TRUE(Pass(absl::Minutes(5)).empty());
}

TEST_F(RegistryTest, AnyWordRenewsTheLease) {
  const SessionId session = Connect("w");
  Give("w", a_);
  EXPECT_TRUE(Pass(absl::Minutes(5), [&] { EXPECT_TRUE(registry_.Heard(session).ok()); }).empty());
  EXPECT_EQ(TimeUntilLost(), absl::Seconds(10));
}

TEST_F(RegistryTest, WallClockJumpsLoseNoLease) {
  Connect("w");
  Give("w", a_, absl::Hours(1));
  registry_.Begun(a_);
  for (const absl::Duration jump : {absl::Hours(24) * 3650, -absl::Hours(24) * 7300}) {
    clock_.JumpWall(jump);
    EXPECT_TRUE(registry_.TakeLost().empty());
  }
  EXPECT_EQ(TimeUntilLost(), absl::Seconds(10));
}

TEST_F(RegistryTest, TimeInWhichNobodyLookedCountsAgainstNobody) {
  const SessionId session = Connect("w");
  Connect("mute");
  Give("w", a_);
  Give("mute", b_);
  EXPECT_TRUE(Pass(absl::Seconds(5), [&] { EXPECT_TRUE(registry_.Heard(session).ok()); }).empty());
  clock_.Advance(absl::Seconds(12));
  EXPECT_TRUE(registry_.TakeLost().empty()) << "nobody could be heard";
  // The living is heard again; the silent one is lost after a lease of listening in all.
  const absl::Duration until = TimeUntilLost([&] { EXPECT_TRUE(registry_.Heard(session).ok()); });
  ASSERT_EQ(last_lost_.size(), 1u);
  EXPECT_EQ(last_lost_[0].ref, b_);
  EXPECT_EQ(until, absl::Seconds(4.5)) << "of the gap only half a second counts";
  EXPECT_EQ(*registry_.Holder(a_), session);
}

TEST_F(RegistryTest, TimeBeforeTheFirstLookCountsAgainstNobody) {
  // A slow start: the store is opened, ports are bound.
  registry_.Adopt({{.ref = a_, .worker = "w", .process_id = 100}});
  clock_.Advance(absl::Seconds(20));
  EXPECT_TRUE(registry_.TakeLost().empty());
  EXPECT_EQ(TimeUntilLost(), absl::Seconds(14.5));
}

TEST_F(RegistryTest, BlindnessCountsAgainstNoLimitOfAnAttempt) {
  const SessionId session = Connect(HelloWithSlots("w", 2));
  Give("w", a_, absl::Seconds(30));
  registry_.Begun(a_);
  Give("w", b_);
  const AttemptPulse running{.ref = a_, .stage = kStageDenoise, .counter = 1};
  const AttemptPulse other{.ref = b_, .stage = kStageDenoise, .counter = 1};
  ASSERT_TRUE(Beat(session, {running, other}).ok());
  EXPECT_TRUE(registry_.TakeLost().empty());
  clock_.Advance(absl::Hours(3));
  EXPECT_TRUE(registry_.TakeLost().empty());
  // Of the 45 seconds and 10 minutes half a second has gone: what a look may take.
  const auto beat = [&] { EXPECT_TRUE(registry_.Heard(session).ok()); };
  EXPECT_EQ(TimeUntilLost(beat), absl::Seconds(44.5));
  ASSERT_EQ(last_lost_.size(), 1u);
  EXPECT_EQ(last_lost_[0].cause, FailureCause::kRunTimeout);
  EXPECT_EQ(TimeUntilLost(beat), absl::Minutes(10) - absl::Seconds(45));
  EXPECT_EQ(last_lost_[0].cause, FailureCause::kHang);
}

TEST_F(RegistryTest, DeadWorkerIsLostInBoundedTimeThoughEveryLookIsLate) {
  Connect("w");
  Give("w", a_);
  registry_.TakeLost();
  int looks = 0;
  for (std::vector<LostAttempt> lost; lost.empty() && looks < 1000; ++looks) {
    clock_.Advance(absl::Seconds(12));
    lost = registry_.TakeLost();
  }
  EXPECT_EQ(looks, 20) << "each look counts as half a second";
}

TEST_F(RegistryTest, DroppedConnectionIsForgivenWithinTheGrace) {
  const SessionId session = Connect("w");
  Give("w", a_);
  registry_.Disconnected(session);
  EXPECT_TRUE(IsStaleAttempt(registry_.Holder(a_).status()));
  EXPECT_FALSE(IsReady("w"));
  EXPECT_TRUE(Pass(absl::Seconds(14.5)).empty());
  const auto back = registry_.Hello(Hello("w", 100, {a_, b_}));
  ASSERT_TRUE(back.ok());
  EXPECT_THAT(back->resumed, testing::ElementsAre(a_));
  EXPECT_THAT(back->dropped, testing::ElementsAre(b_));
  EXPECT_TRUE(back->lost.empty());
  EXPECT_EQ(*registry_.Holder(a_), back->session);
  EXPECT_TRUE(Pass(absl::Seconds(9.5)).empty());
  EXPECT_FALSE(registry_.Reserve("w")) << "its slot is taken still";
}

TEST_F(RegistryTest, WorkerThatDoesNotComeBackLosesItsAttempts) {
  const SessionId session = Connect("w");
  Give("w", a_);
  registry_.Disconnected(session);
  EXPECT_EQ(TimeUntilLost(), absl::Seconds(15));
  ASSERT_EQ(last_lost_.size(), 1u);
  EXPECT_EQ(last_lost_[0].cause, FailureCause::kLeaseLost);
  EXPECT_EQ(last_lost_[0].session, 0);
  const auto back = registry_.Hello(Hello("w", 100, {a_}));
  EXPECT_THAT(back->dropped, testing::ElementsAre(a_)) << "too late";
}

TEST_F(RegistryTest, IdleWorkerThatDisconnectsIsForgottenAtOnce) {
  registry_.Disconnected(Connect("w"));
  EXPECT_TRUE(registry_.Snapshot().empty());
}

TEST_F(RegistryTest, WorkerThatIsAwayIsForgottenWithItsLastAttempt) {
  const SessionId session = Connect(HelloWithSlots("w", 2));
  Give("w", a_);
  Give("w", b_);
  registry_.Disconnected(session);
  registry_.Release(a_);
  EXPECT_EQ(registry_.Snapshot().size(), 1u);
  registry_.Release(b_);
  EXPECT_TRUE(registry_.Snapshot().empty());
  registry_.Release(b_);
}

TEST_F(RegistryTest, HelloReplacesTheOldSession) {
  const SessionId first = Connect("w");
  Give("w", a_);
  const auto second = registry_.Hello(Hello("w", 100, {a_}));
  ASSERT_TRUE(second.ok());
  EXPECT_TRUE(absl::IsAborted(Beat(first)));
  EXPECT_TRUE(absl::IsAborted(registry_.Heard(first)));
  EXPECT_TRUE(absl::IsAborted(registry_.StartDraining(first)));
  registry_.Disconnected(first);
  EXPECT_EQ(*registry_.Holder(a_), second->session) << "the old stream's end means nothing";
}

TEST_F(RegistryTest, SessionZeroIsNobody) {
  registry_.Disconnected(Connect("idle"));
  const SessionId session = Connect("w");
  Give("w", a_);
  registry_.Disconnected(session);
  EXPECT_TRUE(absl::IsAborted(registry_.Heard(0)));
  EXPECT_FALSE(registry_.CanAssign({}));
}

// --- Who is to blame. ---

TEST_F(RegistryTest, RestartedWorkerHasCrashedWithItsAttempt) {
  const SessionId session = Connect("w", 100);
  Give("w", a_);
  const AttemptPulse pulse{.ref = a_, .stage = kStageDenoise, .counter = 7, .steps = 2};
  ASSERT_TRUE(Beat(session, {pulse}).ok());
  const auto back = registry_.Hello(Hello("w", 101));
  ASSERT_EQ(back->lost.size(), 1u);
  EXPECT_EQ(back->lost[0].ref, a_);
  EXPECT_EQ(back->lost[0].cause, FailureCause::kCrash);
  EXPECT_EQ(back->lost[0].pulse.counter, 7) << "where it was";
  EXPECT_EQ(back->lost[0].pulse.stage, kStageDenoise);
}

TEST_F(RegistryTest, SameProcessWithoutTheAttemptNeverGotIt) {
  Connect("w", 100);
  Give("w", a_);
  const auto back = registry_.Hello(Hello("w", 100));
  ASSERT_EQ(back->lost.size(), 1u);
  EXPECT_EQ(back->lost[0].cause, FailureCause::kInterrupted);
}

TEST_F(RegistryTest, KnownDeathLosesAttemptsAtOnce) {
  Connect("w", 100);
  Give("w", a_);
  const auto lost = registry_.WorkerEnded("w", 100, FailureCause::kCrash, "killed by signal 11");
  ASSERT_EQ(lost.size(), 1u);
  EXPECT_EQ(lost[0].cause, FailureCause::kCrash);
  EXPECT_EQ(lost[0].reason, "killed by signal 11");
  EXPECT_EQ(lost[0].session, 0);
  EXPECT_TRUE(registry_.Snapshot().empty());
  EXPECT_TRUE(registry_.WorkerEnded("w", 100, FailureCause::kCrash, "again").empty());
}

TEST_F(RegistryTest, LateNoticeOfADeathDoesNotTouchTheSuccessor) {
  Connect("w", 100);
  const SessionId session = Connect("w", 101);
  Give("w", a_);
  EXPECT_TRUE(registry_.WorkerEnded("w", 100, FailureCause::kCrash, "x").empty());
  EXPECT_EQ(*registry_.Holder(a_), session);
}

TEST_F(RegistryTest, AdoptedAttemptIsTakenUpByTheWorkerThatProvesItsToken) {
  registry_.Adopt({{.ref = a_, .worker = "w"}, {.ref = b_, .worker = "v"}});
  const AttemptRef forged{a_.job_id, a_.attempt, "guess"};
  const auto thief = registry_.Hello(Hello("v", 7, {forged}));
  EXPECT_TRUE(thief->resumed.empty());
  EXPECT_THAT(thief->dropped, testing::ElementsAre(forged));
  ASSERT_EQ(thief->lost.size(), 1u);
  EXPECT_EQ(thief->lost[0].ref, b_);
  EXPECT_EQ(thief->lost[0].cause, FailureCause::kLeaseLost) << "no process is written down";
  EXPECT_TRUE(Pass(absl::Seconds(5)).empty());
  EXPECT_THAT(registry_.Hello(Hello("w", 8, {a_}))->resumed, testing::ElementsAre(a_));
}

TEST_F(RegistryTest, AdoptedAttemptThatItsWorkerLacksTellsByTheProcessWhy) {
  struct Case {
    int64_t adopted, back;
    FailureCause want;
  };
  for (const Case& c :
       {Case{100, 100, FailureCause::kInterrupted}, Case{100, 101, FailureCause::kCrash},
        Case{0, 100, FailureCause::kLeaseLost}, Case{100, 0, FailureCause::kLeaseLost}}) {
    WorkerRegistry registry(LeaseOptions(), clock_);
    registry.Adopt({{.ref = a_, .worker = "w", .process_id = c.adopted}});
    const auto back = registry.Hello(Hello("w", c.back));
    ASSERT_EQ(back->lost.size(), 1u);
    EXPECT_EQ(FailureCauseName(back->lost[0].cause), std::string(FailureCauseName(c.want)))
        << c.adopted << " then " << c.back;
  }
}

TEST_F(RegistryTest, AdoptedAttemptsOfOneWorkerStayTogether) {
  registry_.Adopt({{.ref = a_, .worker = "w", .process_id = 100},
                   {.ref = b_, .worker = "w", .process_id = 100}});
  const auto back = registry_.Hello(Hello("w", 100, {b_}));
  EXPECT_THAT(back->resumed, testing::ElementsAre(b_));
  ASSERT_EQ(back->lost.size(), 1u);
  EXPECT_EQ(back->lost[0].ref, a_);
}

TEST_F(RegistryTest, AdoptedAttemptIsLostAfterTheGrace) {
  registry_.Adopt({{.ref = a_, .worker = "w"}});
  EXPECT_EQ(TimeUntilLost(), absl::Seconds(15));
  ASSERT_EQ(last_lost_.size(), 1u);
  EXPECT_TRUE(registry_.Snapshot().empty());
}

TEST_F(RegistryTest, AdoptedAttemptOfADeadWorkerIsLostWithTheNotice) {
  registry_.Adopt({{.ref = a_, .worker = "w"}});
  EXPECT_EQ(registry_.WorkerEnded("w", 55, FailureCause::kCrash, "x").size(), 1u);
  registry_.Adopt({{.ref = a_, .worker = "w", .process_id = 54}});
  EXPECT_TRUE(registry_.WorkerEnded("w", 55, FailureCause::kCrash, "x").empty());
  EXPECT_EQ(registry_.WorkerEnded("w", 54, FailureCause::kCrash, "x").size(), 1u);
}

// --- Hangs. ---

class HangTest : public RegistryTest {
 protected:
  HangTest() { session_ = Connect(HelloWithSlots("w", 2)); }
  // Beats once a second with `pulse` as it is, until something is lost.
  absl::Duration StandStill(const AttemptPulse& pulse) {
    EXPECT_TRUE(Beat(session_, {pulse}).ok());
    return TimeUntilLost([&] { EXPECT_TRUE(Beat(session_, {pulse}).ok()); });
  }

  // One attempt under `options` whose pulse stays as it is, of a kind with these usual steps: how
  // long until it is lost, and that it is for its standing still.
  absl::Duration TimeUntilHang(const LeaseOptions& options, AttemptPulse pulse, UsualSteps usual) {
    WorkerRegistry registry(options, clock_);
    const SessionId session = registry.Hello(Hello("w"))->session;
    EXPECT_TRUE(registry.Assign(*registry.Reserve("w"), a_, absl::InfiniteDuration()).ok());
    registry.SetUsualSteps(a_, std::move(usual));
    registry.SetUsualSteps(b_, {});  // not held
    pulse.ref = a_;
    const absl::Duration begin = clock_.Monotonic();
    std::vector<LostAttempt> lost;
    for (int i = 0; i < 10'000 && lost.empty(); ++i) {
      EXPECT_TRUE(registry.Heartbeat(session, {pulse}, {}).ok());
      lost = registry.TakeLost();
      if (lost.empty()) clock_.Advance(absl::Milliseconds(500));
    }
    EXPECT_EQ(lost.size(), 1u);
    for (const LostAttempt& each : lost) {
      EXPECT_EQ(each.cause, FailureCause::kHang);
      EXPECT_EQ(each.pulse.stage, pulse.stage);
      EXPECT_EQ(each.session, session);
    }
    return clock_.Monotonic() - begin;
  }

  SessionId session_ = 0;
};

TEST_F(HangTest, StandingStillIsJudgedByTheStage) {
  struct Case {
    const char* what;
    AttemptPulse pulse;
    absl::Duration want;
  };
  LeaseOptions options;
  options.hang.loading = absl::Minutes(7);
  options.hang.unknown = absl::Minutes(11);
  const std::vector<Case> cases = {
      {"waiting", {.stage = kStageWaiting}, absl::Minutes(7)},
      {"loading", {.stage = kStageLoad, .counter = 3}, absl::Minutes(7)},
      {"loading has no steps",
       {.stage = kStageLoad, .steps = 9, .usual_step = absl::Seconds(1)},
       absl::Minutes(7)},
      {"no step yet", {.stage = kStageDenoise}, absl::Minutes(11)},
      {"two steps",
       {.stage = kStageDenoise, .steps = 2, .usual_step = absl::Seconds(1)},
       absl::Minutes(11)},
      {"three quick steps",
       {.stage = kStageDenoise, .steps = 3, .usual_step = absl::Seconds(1)},
       absl::Minutes(2)},
      {"three slow steps",
       {.stage = kStageDenoise, .steps = 3, .usual_step = absl::Minutes(4)},
       absl::Minutes(20)},
      {"steps of unknown length", {.stage = kStageDenoise, .steps = 3}, absl::Minutes(11)},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    EXPECT_EQ(TimeUntilHang(options, c.pulse, {}), c.want);
  }
}

TEST_F(HangTest, EarlierRunsAreKnownBeforeTheFirstStep) {
  const auto limit = [&](int stage, int steps, absl::Duration usual_step, UsualSteps usual) {
    AttemptPulse pulse;
    pulse.stage = stage;
    pulse.steps = steps;
    pulse.usual_step = usual_step;
    return TimeUntilHang({}, pulse, std::move(usual));
  };
  const auto known = [](int stage, int steps, absl::Duration time) {
    return UsualSteps{{stage, UsualStep{.steps = steps, .time = time}}};
  };
  const UsualSteps slow = known(kStageDenoise, 3, absl::Minutes(4));
  EXPECT_EQ(limit(kStageDenoise, 0, absl::ZeroDuration(), slow), absl::Minutes(20));
  EXPECT_EQ(
      limit(kStageDenoise, 0, absl::ZeroDuration(), known(kStageDenoise, 2, absl::Minutes(4))),
      absl::Minutes(10))
      << "too few steps";
  EXPECT_EQ(
      limit(kStageDenoise, 0, absl::ZeroDuration(), known(kStageDenoise + 1, 30, absl::Minutes(4))),
      absl::Minutes(10))
      << "another stage";
  EXPECT_EQ(limit(kStageDenoise, 3, absl::Minutes(1), slow), absl::Minutes(20))
      << "quicker than ever";
  EXPECT_EQ(limit(kStageDenoise, 3, absl::Minutes(5), slow), absl::Minutes(25))
      << "slower than ever";
  EXPECT_EQ(
      limit(kStageDenoise, 0, absl::ZeroDuration(), known(kStageDenoise, 3, absl::Seconds(1))),
      absl::Minutes(2));
  EXPECT_EQ(limit(kStageLoad, 0, absl::ZeroDuration(), known(kStageLoad, 9, absl::Minutes(9))),
            absl::Minutes(10))
      << "loading is judged by itself";
}

TEST_F(HangTest, AttemptOfWhichNothingIsHeardHangs) {
  Give("w", a_);
  EXPECT_EQ(TimeUntilLost([&] { EXPECT_TRUE(Beat(session_).ok()); }), absl::Minutes(10));
  EXPECT_EQ(last_lost_[0].cause, FailureCause::kHang);
}

TEST_F(HangTest, IdleWorkerNeedNotProgress) {
  EXPECT_TRUE(Pass(absl::Hours(2), [&] { EXPECT_TRUE(Beat(session_).ok()); }).empty());
  EXPECT_TRUE(IsReady("w"));
}

TEST_F(HangTest, ProgressOfCounterOrStageIsEnough) {
  Give("w", a_);
  AttemptPulse pulse{.ref = a_, .stage = kStageDenoise, .steps = 3, .usual_step = absl::Seconds(1)};
  int second = 0;
  EXPECT_TRUE(Pass(absl::Hours(1), [&] {
                if (++second % 110 == 0) ++pulse.counter;
                EXPECT_TRUE(Beat(session_, {pulse}).ok());
              }).empty());
  EXPECT_TRUE(Pass(absl::Hours(1), [&] {
                if (++second % 110 == 0) ++pulse.stage;
                EXPECT_TRUE(Beat(session_, {pulse}).ok());
              }).empty());
  // More steps without more work are no progress.
  EXPECT_LE(TimeUntilLost([&] {
              ++pulse.steps;
              EXPECT_TRUE(Beat(session_, {pulse}).ok());
            }),
            absl::Minutes(2));
}

TEST_F(HangTest, OneHangingAttemptDoesNotTakeTheOthersWithIt) {
  Give("w", a_);
  Give("w", b_);
  AttemptPulse still{.ref = a_, .stage = kStageDenoise, .counter = 5};
  AttemptPulse moving{.ref = b_, .stage = kStageDenoise};
  const auto beat = [&] {
    ++moving.counter;
    EXPECT_TRUE(Beat(session_, {still, moving}).ok());
  };
  beat();
  EXPECT_EQ(TimeUntilLost(beat), absl::Minutes(10));
  ASSERT_EQ(last_lost_.size(), 1u);
  EXPECT_EQ(last_lost_[0].ref, a_);
  EXPECT_EQ(*registry_.Holder(b_), session_);
  EXPECT_TRUE(IsReady("w")) << "its slot is free";
  EXPECT_TRUE(Pass(absl::Hours(1), beat).empty());
}

TEST_F(HangTest, WaitingBehindAnotherAttemptIsNoHang) {
  Give("w", a_);
  Give("w", b_);
  AttemptPulse busy{.ref = a_, .stage = kStageDenoise};
  const AttemptPulse waiting{.ref = b_, .stage = kStageWaiting};
  const auto beat = [&](bool is_moving) {
    if (is_moving) ++busy.counter;
    EXPECT_TRUE(Beat(session_, {busy, waiting}).ok());
  };
  beat(true);
  EXPECT_TRUE(Pass(absl::Hours(1), [&] { beat(true); }).empty());
  // The one at work stands still: it is lost, and not the one behind it.
  EXPECT_EQ(TimeUntilLost([&] { beat(false); }), absl::Minutes(10));
  ASSERT_EQ(last_lost_.size(), 1u);
  EXPECT_EQ(last_lost_[0].ref, a_);
  // Now nothing is before it any more.
  EXPECT_EQ(TimeUntilLost([&] { EXPECT_TRUE(Beat(session_, {waiting}).ok()); }), absl::Minutes(10));
  ASSERT_EQ(last_lost_.size(), 1u);
  EXPECT_EQ(last_lost_[0].ref, b_);
}

TEST_F(HangTest, WorkerThatWasAwayBeginsAnew) {
  Give("w", a_);
  const AttemptPulse pulse{.ref = a_, .stage = kStageDenoise, .counter = 5};
  ASSERT_TRUE(Beat(session_, {pulse}).ok());
  EXPECT_TRUE(Pass(absl::Minutes(9), [&] { EXPECT_TRUE(Beat(session_, {pulse}).ok()); }).empty());
  registry_.Disconnected(session_);
  EXPECT_TRUE(Pass(absl::Seconds(14)).empty());
  const auto back = registry_.Hello(Hello("w", 100, {a_}));
  session_ = back->session;
  EXPECT_EQ(StandStill(pulse), absl::Minutes(10));
}

TEST_F(HangTest, WorkerThatIsAwayIsJudgedByItsGrace) {
  Give("w", a_);
  const AttemptPulse pulse{.ref = a_, .stage = kStageDenoise, .counter = 5};
  ASSERT_TRUE(Beat(session_, {pulse}).ok());
  const auto beat = [&] { EXPECT_TRUE(Beat(session_, {pulse}).ok()); };
  EXPECT_TRUE(Pass(absl::Minutes(10) - absl::Seconds(5), beat).empty());
  registry_.Disconnected(session_);
  EXPECT_EQ(TimeUntilLost(), absl::Seconds(15));
  ASSERT_EQ(last_lost_.size(), 1u);
  EXPECT_EQ(last_lost_[0].cause, FailureCause::kLeaseLost);
}

TEST_F(HangTest, PulsesOfForeignAttemptsMeanNothing) {
  const SessionId thief = Connect("thief");
  Give("w", a_);
  AttemptPulse pulse{.ref = a_, .stage = kStageDenoise, .counter = 1};
  ASSERT_TRUE(registry_.Heartbeat(thief, {pulse}, {}).ok());
  EXPECT_EQ(registry_.PulseOf(a_).counter, 0);
  ASSERT_TRUE(Beat(session_, {pulse}).ok());
  EXPECT_EQ(registry_.PulseOf(a_).counter, 1);
  EXPECT_EQ(registry_.PulseOf(b_).ref, b_);
  EXPECT_EQ(registry_.PulseOf(b_).counter, 0);
}

// --- Run timeouts. ---

TEST_F(RegistryTest, RunTimeoutCountsFromTheBeginningOfTheRun) {
  const SessionId session = Connect("w");
  Give("w", a_, absl::Seconds(60));
  AttemptPulse pulse{.ref = a_, .stage = kStageLoad};
  const auto beat = [&] {
    ++pulse.counter;
    EXPECT_TRUE(Beat(session, {pulse}).ok());
  };
  EXPECT_TRUE(Pass(absl::Minutes(30), beat).empty()) << "it loads its model";
  registry_.Begun(a_);
  EXPECT_EQ(TimeUntilLost(beat), absl::Seconds(75)) << "run_timeout and its slack";
  ASSERT_EQ(last_lost_.size(), 1u);
  EXPECT_EQ(last_lost_[0].cause, FailureCause::kRunTimeout);
  EXPECT_EQ(last_lost_[0].session, session);
  EXPECT_TRUE(Beat(session).ok());
  EXPECT_TRUE(registry_.Reserve("w"));
  registry_.Begun(a_);  // too late: nothing happens
}

TEST_F(RegistryTest, RunTimeoutOfAnAdoptedAttemptStartsAnew) {
  registry_.Adopt(
      {{.ref = a_, .worker = "w", .process_id = 100, .run_timeout = absl::Seconds(60)}});
  SessionId session = 0;
  const auto beat = [&] {
    if (session == 0) {
      session = registry_.Hello(Hello("w", 100, {a_}))->session;
    } else {
      EXPECT_TRUE(Beat(session).ok());
    }
  };
  EXPECT_EQ(TimeUntilLost(beat), absl::Seconds(75));
  EXPECT_EQ(last_lost_[0].cause, FailureCause::kRunTimeout);
}

TEST_F(RegistryTest, RunTimeoutEndsThoughTheWorkerIsAway) {
  const SessionId session = Connect("w");
  Give("w", a_, absl::Seconds(1));
  registry_.Begun(a_);
  EXPECT_TRUE(Pass(absl::Seconds(9)).empty());
  registry_.Disconnected(session);
  EXPECT_EQ(TimeUntilLost(), absl::Seconds(7));
  EXPECT_EQ(last_lost_[0].cause, FailureCause::kRunTimeout);
}

// --- What others see. ---

TEST_F(RegistryTest, SnapshotTellsWhoHoldsWhat) {
  const SessionId session = Connect("w");
  Give("w", a_);
  ASSERT_TRUE(Beat(session).ok());
  Connect("a");
  const auto workers = registry_.Snapshot();
  ASSERT_EQ(workers.size(), 2u);
  EXPECT_EQ(workers[0].name, "a");
  EXPECT_EQ(workers[1].name, "w");
  EXPECT_EQ(workers[1].session, session);
  EXPECT_EQ(workers[1].device, "cpu");
  EXPECT_EQ(workers[1].max_attempts, 1);
  EXPECT_FALSE(workers[1].is_draining);
  EXPECT_THAT(workers[1].held, testing::ElementsAre(a_));
  ASSERT_EQ(workers[1].models.size(), 1u);
  EXPECT_TRUE(workers[1].models[0].loaded);
}

TEST_F(RegistryTest, VersionRisesWithEveryChangeThatTheSnapshotShows) {
  int64_t version = registry_.version();
  const auto expect_risen = [&](const char* what, bool has_risen = true) {
    EXPECT_EQ(registry_.version() > version, has_risen) << what;
    version = registry_.version();
  };
  registry_.Adopt({{.ref = b_, .worker = "u"}});
  expect_risen("adopted");
  const SessionId session = Connect(HelloWithSlots("w", 2));
  expect_risen("hello");
  ASSERT_TRUE(registry_.Heard(session).ok());
  ASSERT_TRUE(registry_.Heartbeat(session, {}, {{"ltx", false}}).ok());
  registry_.TakeLost();
  expect_risen("nothing new", false);
  ASSERT_TRUE(Beat(session).ok());
  expect_risen("a model was loaded");
  const auto slot = registry_.Reserve("w");
  expect_risen("reserved");
  registry_.CancelReservation(*slot);
  expect_risen("cancelled");
  Give("w", a_, absl::Seconds(1));
  expect_risen("given");
  registry_.SetOut("cpu", true);
  expect_risen("out");
  registry_.SetOut("cpu", true);
  expect_risen("out before", false);
  registry_.SetOut("cpu", false);
  expect_risen("back");
  ASSERT_TRUE(registry_.StartDraining(session).ok());
  expect_risen("draining");
  registry_.Begun(a_);
  Pass(absl::Minutes(1), [&] { EXPECT_TRUE(registry_.Heard(session).ok()); });  // u is lost
  expect_risen("lost with its worker");
  Pass(absl::Minutes(1), [&] { EXPECT_TRUE(registry_.Heard(session).ok()); });  // a_ is lost
  expect_risen("lost alone");
  EXPECT_TRUE(registry_.Snapshot().at(0).held.empty());
  registry_.Disconnected(session);
  expect_risen("gone");
  EXPECT_TRUE(registry_.Snapshot().empty());
  Connect("w");
  Give("w", a_);
  version = registry_.version();
  registry_.Release(b_);
  expect_risen("not held", false);
  registry_.Release(a_);
  expect_risen("released");
  registry_.WorkerEnded("w", 100, FailureCause::kCrash, "x");
  expect_risen("ended");
  Connect("silent");
  version = registry_.version();
  Pass(absl::Minutes(1));
  expect_risen("an idle worker is lost");
}

}  // namespace
}  // namespace kino::scheduler
