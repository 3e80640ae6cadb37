// A running attempt that is cancelled, timed out or dropped, wherever the worker is with it.
#include <signal.h>

#include <cerrno>

#include "tests/server/worker/worker_fixture.h"

namespace kino::worker {
namespace {

TEST_F(WorkerTest, CancelEndsTheRunAndFreesTheDevice) {
  StartWorker();
  const v1::AttemptRef ref = Start("job", "at=1 do=hang touch=" + folder_ + "/reached");
  AwaitFile("reached");
  v1::FrontendMessage message;
  *message.mutable_cancel()->mutable_ref() = ref;
  message.mutable_cancel()->mutable_ref()->set_token("ffffffffffffffffffffffffffffffff");
  frontend_.Send(message);  // stale: no effect
  message.mutable_cancel()->mutable_ref()->set_token(ref.token());
  frontend_.Send(message);
  EXPECT_EQ(AwaitFailed(ref).cause(), v1::AttemptFailed::CANCELLED_BY_US);
  AwaitDone(Start("next", ""));
}

TEST_F(WorkerTest, NothingMoreIsSentOfADroppedAttempt) {
  StartWorker();
  const v1::AttemptRef ref = Start("job", WaitingScript(1));
  AwaitFile("reached");
  v1::FrontendMessage message;
  *message.mutable_drop()->mutable_ref() = ref;
  frontend_.Send(message);
  AwaitDone(Start("next", ""));
  for (const auto& [number, event] : Numbered("job")) EXPECT_TRUE(event.has_started());
}

TEST_F(WorkerTest, CancelReachesAnAttemptWhoseModelLoads) {
  WriteLoadScript("other", LoadThatWaits("wait") + " groups=3");
  StartWorker();
  v1::StartAttempt command = StartCommand("job", "");
  command.mutable_request()->set_model("other");
  const v1::AttemptRef ref = Start(command);
  AwaitFile("loading");
  // Heartbeats go on, and say what the attempt does.
  for (int i = 0; i < 3; ++i) {
    const v1::AttemptPulse pulse =
        AwaitPulse("job", [](const auto& p) { return p.stage() == v1::LOAD && p.counter() > 0; });
    EXPECT_EQ(pulse.counter(), 1) << "the first group of weights";
  }
  Cancel(ref);
  EXPECT_EQ(AwaitFailed(ref).cause(), v1::AttemptFailed::CANCELLED_BY_US);
  // The next one has to load it, from the beginning.
  WriteLoadScript("other", "");
  command.mutable_ref()->set_job_id("next");
  const v1::AttemptDone done = AwaitDone(Start(command));
  ASSERT_EQ(done.stages_size(), 3);
  EXPECT_EQ(done.stages(0).stage(), v1::LOAD);
}

TEST_F(WorkerTest, RunTimeoutReachesAnAttemptWhoseModelLoads) {
  WriteLoadScript("other", LoadThatWaits("wait"));
  StartWorker();
  v1::StartAttempt command = StartCommand("job", "");
  command.mutable_request()->set_model("other");
  command.mutable_run_timeout()->set_nanos(50'000'000);
  EXPECT_EQ(AwaitFailed(Start(command)).cause(), v1::AttemptFailed::RUN_TIMEOUT);
}

TEST_F(WorkerTest, CancelReachesAnAttemptBehindAModelThatAClientLoads) {
  // It does not even look at a token.
  WriteLoadScript("other", LoadThatWaits("deaf"));
  StartWorker();
  SendLoadModel(1, "other");
  AwaitFile("loading");
  const v1::AttemptRef first = Start("first", "");
  EXPECT_EQ(AwaitPulse("first", [](const auto&) { return true; }).stage(), v1::STAGE_UNSPECIFIED);
  Cancel(first);
  EXPECT_EQ(AwaitFailed(first).cause(), v1::AttemptFailed::CANCELLED_BY_US);
  const v1::AttemptRef second = Start("second", "");
  AwaitPulse("second", [](const auto&) { return true; });
  Touch("loaded");
  AwaitDone(second);
  ASSERT_EQ(Numbered("first").size(), 1u) << "it was never started";
  EXPECT_TRUE(Numbered("first").at(1).has_failed());
  size_t from_the_beginning = 0;
  const v1::ModelCommandResult result =
      frontend_.Await(&from_the_beginning, [](const auto& m) { return m.has_model_result(); })
          .model_result();
  EXPECT_EQ(result.command_id(), 1);
  EXPECT_FALSE(result.has_error()) << result.ShortDebugString();
}

TEST_F(WorkerTest, CancelReachesAnAttemptWhoseConditionIsDecoded) {
  StartWorker();
  std::ofstream(folder_ + "/picture") << "wait " << folder_ << "/never";
  v1::StartAttempt command = StartCommand("job", "");
  command.mutable_request()->add_conditions()->set_kind(v1::Condition::IMAGE);
  command.mutable_request()->mutable_conditions(0)->set_asset_id("a");
  command.add_condition_files(folder_ + "/picture");
  const v1::AttemptRef ref = Start(command);
  AwaitPulse("job", [](const auto& pulse) { return pulse.stage() == v1::ENCODE_MEDIA; });
  Cancel(ref);
  EXPECT_EQ(AwaitFailed(ref).cause(), v1::AttemptFailed::CANCELLED_BY_US);
  AwaitDone(Start("next", ""));
}

// A decoder that never answers: a process of its own, which says where it is.
class HungDecoderTest : public WorkerTest {
 protected:
  v1::AttemptRef StartDecoding(absl::Duration run_timeout = absl::Hours(1)) {
    const std::string program = folder_ + "/decoder", told = folder_ + "/decodes";
    std::ofstream(program) << "#!/bin/sh\necho $$ > " << told << ".new && mv " << told << ".new "
                           << told << "\nexec sleep 1000\n";
    fs::permissions(program, fs::perms::owner_all);
    std::ofstream(folder_ + "/picture") << "by " << program;
    v1::StartAttempt command = StartCommand("job", "");
    command.mutable_request()->add_conditions()->set_kind(v1::Condition::IMAGE);
    command.mutable_request()->mutable_conditions(0)->set_asset_id("a");
    command.add_condition_files(folder_ + "/picture");
    command.mutable_run_timeout()->set_seconds(absl::ToInt64Seconds(run_timeout));
    const v1::AttemptRef ref = Start(command);
    AwaitFile("decodes");
    decoder_ = std::stoi(ReadAll(told));
    EXPECT_EQ(kill(decoder_, 0), 0);
    return ref;
  }
  // Killed and reaped before the attempt's end is told.
  void ExpectEnd(const v1::AttemptRef& ref, Cause cause) {
    EXPECT_EQ(AwaitFailed(ref).cause(), cause);
    EXPECT_EQ(kill(decoder_, 0), -1) << "the decoder is neither alive nor a zombie";
    EXPECT_EQ(errno, ESRCH);
  }

  pid_t decoder_ = 0;
};

TEST_F(HungDecoderTest, ACancelEndsItAndTheWorkerGoesOn) {
  StartWorker();
  const v1::AttemptRef ref = StartDecoding();
  Cancel(ref);
  ExpectEnd(ref, v1::AttemptFailed::CANCELLED_BY_US);
  AwaitDone(Start("next", ""));
}

TEST_F(HungDecoderTest, RunTimeoutEndsItAndTheWorkerGoesOn) {
  StartWorker();
  ExpectEnd(StartDecoding(absl::Seconds(1)), v1::AttemptFailed::RUN_TIMEOUT);
  AwaitDone(Start("next", ""));
}

TEST_F(HungDecoderTest, TheDrainDeadlineEndsItAndGivesTheAttemptBack) {
  StartWorker("", {"--drain-seconds", "1"});
  const v1::AttemptRef ref = StartDecoding();
  worker_->Signal(SIGTERM);
  ExpectEnd(ref, v1::AttemptFailed::INTERRUPTED);
  EXPECT_EQ(worker_->Wait(), 0);
}

TEST_F(HungDecoderTest, AStopAtOnceEndsItAndGivesTheAttemptBack) {
  StartWorker("", {"--drain-seconds", "3600"});
  const v1::AttemptRef ref = StartDecoding();
  worker_->Signal(SIGTERM);
  frontend_.Await(&position_, [](const auto& m) { return m.has_draining(); });
  worker_->Signal(SIGTERM);
  ExpectEnd(ref, v1::AttemptFailed::INTERRUPTED);
  EXPECT_EQ(worker_->Wait(), 0);
}

TEST_F(HungDecoderTest, ADroppedAttemptEndsItAndTheWorkerGoesOn) {
  StartWorker();
  v1::FrontendMessage drop;
  *drop.mutable_drop()->mutable_ref() = StartDecoding();
  frontend_.Send(drop);
  AwaitDone(Start("next", ""));
  EXPECT_EQ(kill(decoder_, 0), -1);
}

}  // namespace
}  // namespace kino::worker
