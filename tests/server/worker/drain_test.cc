// A worker that is told to stop.
#include <signal.h>

#include "tests/server/worker/worker_fixture.h"

namespace kino::worker {
namespace {

TEST_F(WorkerTest, SigtermWaitsForNoModelThatAClientLoads) {
  WriteLoadScript("other", LoadThatWaits("wait"));
  StartWorker("", {"--drain-seconds", "3600"});
  SendLoadModel(1, "other");
  AwaitFile("loading");
  worker_->Signal(SIGTERM);
  ASSERT_TRUE(worker_->EndsWithin(60));
  EXPECT_EQ(worker_->Wait(), 0);
}

TEST_F(WorkerTest, TheDrainDeadlineInterruptsAnAttemptThatWaits) {
  WriteLoadScript("other", LoadThatWaits("wait"));
  StartWorker();
  SendLoadModel(1, "other");
  AwaitFile("loading");
  const v1::AttemptRef ref = Start("job", "");
  AwaitPulse("job", [](const auto&) { return true; });
  worker_->Signal(SIGTERM);
  frontend_.Await(&position_, [](const auto& m) { return m.has_draining(); });
  worker_->Signal(SIGTERM);
  EXPECT_EQ(AwaitFailed(ref).cause(), v1::AttemptFailed::INTERRUPTED);
  EXPECT_EQ(worker_->Wait(), 0);
}

TEST_F(WorkerTest, SigtermOnAnIdleWorkerEndsIt) {
  StartWorker();
  worker_->Signal(SIGTERM);
  EXPECT_EQ(worker_->Wait(), 0);
}

TEST_F(WorkerTest, SigtermLetsTheRunningAttemptFinish) {
  StartWorker();
  const v1::AttemptRef ref = Start("job", WaitingScript(1));
  AwaitFile("reached");
  worker_->Signal(SIGTERM);
  frontend_.Await(&position_, [](const auto& m) { return m.has_draining(); });
  const v1::AttemptFailed refused = AwaitFailed(Start("late", ""));
  EXPECT_EQ(refused.cause(), v1::AttemptFailed::INTERRUPTED);
  Touch("go");
  const v1::AttemptEvent last =
      AwaitEvent(ref, [](const auto& e) { return e.has_done() || e.has_failed(); });
  EXPECT_TRUE(last.has_done());
  EXPECT_EQ(worker_->Wait(), 0);
}

TEST_F(WorkerTest, ASecondSigtermInterrupts) {
  StartWorker();
  const v1::AttemptRef ref = Start("job", "at=1 do=hang touch=" + folder_ + "/reached");
  AwaitFile("reached");
  worker_->Signal(SIGTERM);
  frontend_.Await(&position_, [](const auto& m) { return m.has_draining(); });
  worker_->Signal(SIGTERM);
  EXPECT_EQ(AwaitFailed(ref).cause(), v1::AttemptFailed::INTERRUPTED);
  EXPECT_EQ(worker_->Wait(), 0);
}

TEST_F(WorkerTest, TheDrainDeadlineInterrupts) {
  StartWorker("", {"--drain-seconds", "1"});
  const v1::AttemptRef ref = Start("job", "at=1 do=hang touch=" + folder_ + "/reached");
  AwaitFile("reached");
  worker_->Signal(SIGTERM);
  EXPECT_EQ(AwaitFailed(ref).cause(), v1::AttemptFailed::INTERRUPTED);
  EXPECT_EQ(worker_->Wait(), 0);
}

TEST_F(WorkerTest, ADrainCommandEndsTheWorkerAfterItsAttempt) {
  StartWorker();
  const v1::AttemptRef ref = Start("job", WaitingScript(1));
  AwaitFile("reached");
  v1::FrontendMessage message;
  message.mutable_drain();
  frontend_.Send(message);
  frontend_.Await(&position_, [](const auto& m) { return m.has_draining(); });
  Touch("go");
  AwaitDone(ref);
  EXPECT_EQ(worker_->Wait(), 0);
}

TEST_F(WorkerTest, ALostDeviceIsToldAsADrainBeforeAnythingIsAcknowledged) {
  StartWorker();
  Start("job", "at=1 do=device_lost");
  // The frontend gives it no other job, and health says that worker and device do not serve.
  frontend_.Await(&position_, [](const auto& m) { return m.has_draining(); });
  EXPECT_EQ(worker_->Wait(), 70);
}

}  // namespace
}  // namespace kino::worker
