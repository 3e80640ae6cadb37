// Attempts that make no progress, and those that run too long.
#include "tests/scheduler/workers/registry_fixture.h"

namespace kino::scheduler {
namespace {

constexpr int kStageDenoise = 3;  // one that is neither waiting nor loading

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
      EXPECT_TRUE(registry.Heartbeat(session, 0, {pulse}, {}).ok());
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

TEST_F(HangTest, WaitingBehindAModelThatAClientHasLoadedIsNoHangAsLongAsItLoads) {
  Give("w", a_);
  const AttemptPulse waiting{.ref = a_, .stage = kStageWaiting};
  int64_t counter = 0;
  EXPECT_TRUE(Pass(absl::Hours(1), [&] {
                EXPECT_TRUE(Beat(session_, {waiting}, ++counter).ok());
              }).empty());
  EXPECT_EQ(TimeUntilLost([&] { EXPECT_TRUE(Beat(session_, {waiting}, counter).ok()); }),
            absl::Minutes(10))
      << "neither does it load nor is anything before the attempt";
  EXPECT_EQ(last_lost_[0].cause, FailureCause::kHang);
}

TEST_F(HangTest, WhatElseTheWorkerGetsDoneIsNoProgressOfARun) {
  Give("w", a_);
  const AttemptPulse still{.ref = a_, .stage = kStageDenoise};
  EXPECT_TRUE(Beat(session_, {still}).ok());
  int64_t counter = 0;
  EXPECT_EQ(TimeUntilLost([&] { EXPECT_TRUE(Beat(session_, {still}, ++counter).ok()); }),
            absl::Minutes(10));
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
  ASSERT_TRUE(registry_.Heartbeat(thief, 0, {pulse}, {}).ok());
  EXPECT_EQ(registry_.PulseOf(a_).counter, 0);
  ASSERT_TRUE(Beat(session_, {pulse}).ok());
  EXPECT_EQ(registry_.PulseOf(a_).counter, 1);
  EXPECT_EQ(registry_.PulseOf(b_).ref, b_);
  EXPECT_EQ(registry_.PulseOf(b_).counter, 0);
}

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

TEST_F(RegistryTest, RunTimeoutOfAnAdoptedAttemptStartsAnewOnceItRuns) {
  registry_.Adopt(
      {{.ref = a_, .worker = "w", .process_id = 100, .run_timeout = absl::Seconds(60)}});
  const SessionId session = registry_.Hello(Hello("w", 100, {a_}))->session;
  // Behind something else on its worker.
  AttemptPulse pulse{.ref = a_, .stage = kStageWaiting};
  const auto beat = [&] {
    ++pulse.counter;
    EXPECT_TRUE(Beat(session, {pulse}).ok());
  };
  EXPECT_TRUE(Pass(absl::Minutes(5), beat).empty());
  pulse.stage = kStageDenoise;
  beat();
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

}  // namespace
}  // namespace kino::scheduler
