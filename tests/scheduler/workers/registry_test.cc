// Slots of the registry, marks of unfit jobs, and what others see of it.
#include "tests/scheduler/workers/registry_fixture.h"

namespace kino::scheduler {
namespace {

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

TEST_F(RegistryTest, MalformedHelloIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(registry_.Hello(Hello("")).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(registry_.Hello(HelloWithSlots("w", 0)).status()));
  EXPECT_TRUE(registry_.Snapshot().empty());
}

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
  ASSERT_TRUE(registry_.Heartbeat(session, 0, {}, {{"ltx", false}}).ok());
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
