// When the registry gives a worker or an attempt up, and whose fault that is.
#include "scheduler/status.h"
#include "tests/scheduler/workers/registry_fixture.h"

namespace kino::scheduler {
namespace {

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

}  // namespace
}  // namespace kino::scheduler
