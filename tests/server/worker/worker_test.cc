// What a worker says and does for its frontend, and how it copes with what breaks.
#include <sys/resource.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/core/machine.h"
#include "server/digest/sha256.h"
#include "tests/server/worker/worker_fixture.h"
#include "tests/support/fake_engine.h"

namespace kino::worker {
namespace {

TEST_F(WorkerTest, HelloSaysWhoItIs) {
  StartWorker();
  const v1::WorkerHello hello = frontend_.messages()[0].hello();
  EXPECT_EQ(hello.protocol_version(), 1);
  EXPECT_EQ(hello.worker(), "w1");
  EXPECT_EQ(hello.version(), KINO_VERSION);
  EXPECT_EQ(hello.device(), "cpu");
  EXPECT_EQ(hello.device_name(), "fake");
  EXPECT_EQ(hello.device_memory_bytes(), 1 << 30);
  EXPECT_EQ(hello.host_memory_bytes(), engine::UsableMemoryBytes());
  EXPECT_EQ(hello.max_attempts(), 1);
  EXPECT_EQ(hello.pid(), worker_->pid());
  EXPECT_EQ(hello.link_secret(), kSecret);
  ASSERT_EQ(hello.models_size(), 4);
  EXPECT_EQ(hello.models(0).name(), "good");
  EXPECT_EQ(hello.models(0).fingerprint().size(), 64u);
  EXPECT_EQ(hello.held_size(), 0);
}

TEST_F(WorkerTest, HasAllCoresWhereItIsAlone) {
  StartWorker();
  EXPECT_THAT(ReadAll(log_), HasSubstr(absl::StrCat(
                                 "threads: ", engine::DefaultThreads(engine::UsableCores()), ";")));
}

TEST_F(WorkerTest, SharesTheCoresWithTheOthersOnTheCpu) {
  StartWorker("", {}, "}, {name: w2, device: cpu");
  const int share = std::max(1, engine::UsableCores() / 2);
  EXPECT_THAT(ReadAll(log_),
              HasSubstr(absl::StrCat("threads: ", engine::DefaultThreads(share), ";")));
}

TEST_F(WorkerTest, HasItsOwnThreadsWhereTheyAreSaid) {
  StartWorker("", {}, ", threads: 37}, {name: w2, device: cpu");
  EXPECT_THAT(ReadAll(log_), HasSubstr("threads: 37;"));
}

TEST_F(WorkerTest, RunsAnAttemptToItsArtifact) {
  StartWorker();
  const v1::AttemptRef ref = Start("job", "chunks=3 chunk_bytes=600000 secret-prompt");
  const v1::AttemptDone done = AwaitDone(ref);
  const auto events = Numbered("job");
  EXPECT_TRUE(events.at(1).has_started());
  EXPECT_EQ(events.rbegin()->first, static_cast<int64_t>(events.size())) << "numbers have a gap";
  const std::string expected = support::FakeOutput(7, 3, 600000);
  EXPECT_TRUE(Bytes("job") == expected);
  EXPECT_EQ(done.artifact().size_bytes(), 1800000);
  EXPECT_EQ(done.artifact().sha256(), digest::Sha256Of(expected));
  EXPECT_EQ(done.artifact().content_type(), "video/mp4");
  ASSERT_EQ(done.stages_size(), 3);
  EXPECT_EQ(done.stages(0).stage(), v1::LOAD);
  EXPECT_EQ(done.step_seconds_size(), 4);
  EXPECT_EQ(done.first_chunk_seconds(), 0.25);
  // The second one finds the model loaded.
  EXPECT_EQ(AwaitDone(Start("again", "")).stages_size(), 2);
  EXPECT_THAT(ReadAll(log_), Not(HasSubstr("secret-prompt")));
}

TEST_F(WorkerTest, DoneTellsThePlanThatRanWithinTheWorkersLimits) {
  StartWorker("", {}, ", max_device_memory: 1GiB");
  v1::StartAttempt command = StartCommand("job", "offload=block:1");
  command.mutable_request()->mutable_plan()->set_offload("none");
  command.mutable_request()->mutable_plan()->set_max_device_memory(int64_t{8} << 30);
  command.mutable_request()->mutable_plan()->set_max_host_memory(12345678);
  const v1::AttemptDone done = AwaitDone(Start(command));
  EXPECT_EQ(Numbered("job").at(1).started().plan().offload(), "none");
  EXPECT_EQ(done.plan().offload(), "block:1");
  EXPECT_EQ(done.plan().max_device_memory(), 1 << 30);
  EXPECT_EQ(done.plan().max_host_memory(), 12345678);
}

TEST_F(WorkerTest, TheWeightsHashIsToldAndOutlivesTheProcess) {
  const std::string command = absl::StrCat(
      "cd ", KINO_SOURCE_DIR, "/models/demo && find -name '*.safetensors' -printf '%P\\0' | ",
      "xargs -0 sha256sum | LC_ALL=C sort -k 2 | sha256sum > ", folder_, "/expected");
  ASSERT_EQ(std::system(command.c_str()), 0);
  const std::string expected = ReadAll(folder_ + "/expected").substr(0, 64);
  for (int i = 0; i < 2; ++i) {
    StartWorker();
    SendLoadModel(1, "demo");
    frontend_.Await(&position_, [&](const auto& m) {
      return m.heartbeat().models_size() == 4 &&
             m.heartbeat().models(3).weights_sha256() == expected;
    });
    v1::StartAttempt start = StartCommand(absl::StrCat("job", i), "");
    start.mutable_request()->set_model("demo");
    EXPECT_EQ(AwaitDone(Start(start)).weights_sha256(), expected);
    const std::string kept = ReadAll(folder_ + "/data/weights/w1");
    EXPECT_EQ(std::count(kept.begin(), kept.end(), '\n'), 3) << "a line for each file";
    SendUnloadModel(2, "demo");
    frontend_.Await(&position_, [](const auto& m) {
      return m.heartbeat().models_size() == 4 && !m.heartbeat().models(3).loaded() &&
             m.heartbeat().models(3).weights_sha256().empty();
    });
    worker_->Signal(SIGTERM);
    EXPECT_EQ(worker_->Wait(), 0);
  }
}

TEST_F(WorkerTest, ProgressCarriesAttemptStageAndStep) {
  StartWorker();
  const v1::AttemptRef ref = Start("job", "steps=5 step_ms=120");
  const v1::Progress progress =
      AwaitEvent(ref, [](const auto& e) {
        return e.has_progress() && e.progress().stage() == v1::DENOISE && e.progress().step() >= 2;
      }).progress();
  EXPECT_EQ(progress.attempt(), 1);
  EXPECT_EQ(progress.total_steps(), 5);
  EXPECT_GT(progress.fraction(), 0);
  AwaitDone(ref);
}

TEST_F(WorkerTest, HeartbeatsGoOnWhileAStepRuns) {
  StartWorker();
  const v1::AttemptRef ref = Start("job", WaitingScript(2));
  AwaitFile("reached");
  int64_t counter = 0;
  for (int i = 0; i < 3; ++i) {
    const auto heartbeat =
        frontend_.Await(&position_, [](const auto& m) { return m.has_heartbeat(); }).heartbeat();
    EXPECT_GE(heartbeat.progress_counter(), counter);
    counter = heartbeat.progress_counter();
  }
  Touch("go");
  AwaitDone(ref);
  EXPECT_GT(frontend_
                .Await(&position_,
                       [&](const auto& m) {
                         return m.has_heartbeat() && m.heartbeat().progress_counter() > counter;
                       })
                .heartbeat()
                .progress_counter(),
            counter);
}

TEST_F(WorkerTest, ProfilesAreAnsweredWhileAStepRuns) {
  StartWorker();
  const v1::AttemptRef ref = Start("job", WaitingScript(2));
  AwaitFile("reached");
  const auto answer_to = [&](int64_t id, const std::string& model, bool without_places) {
    v1::FrontendMessage message;
    v1::ProfileQuery& query = *message.mutable_profile();
    query.set_query_id(id);
    query.set_model(model);
    query.set_without_places(without_places);
    *query.mutable_request() = StartCommand("asked", "").request();
    query.mutable_request()->set_height(64);
    query.mutable_request()->set_width(64);
    query.mutable_request()->set_num_frames(17);
    query.add_variants();
    query.add_variants()->set_chunk_feed_forward(64);
    frontend_.Send(message);
    return frontend_.Await(&position_, [](const auto& m) { return m.has_profile(); }).profile();
  };
  const v1::ProfileAnswer whole = answer_to(7, "demo", false);
  EXPECT_EQ(whole.query_id(), 7);
  ASSERT_FALSE(whole.has_error()) << whole.ShortDebugString();
  EXPECT_GT(whole.profile().places_size(), 0);
  ASSERT_EQ(whole.profile().variants_size(), 2);
  EXPECT_EQ(whole.profile().variants(1).variant().chunk_feed_forward(), 64);
  EXPECT_GT(whole.profile().variants(0).phases_size(), 0);
  const v1::ProfileAnswer without = answer_to(8, "demo", true);
  EXPECT_EQ(without.query_id(), 8);
  EXPECT_EQ(without.profile().places_size(), 0);
  EXPECT_EQ(without.profile().variants_size(), 2);
  const v1::ProfileAnswer unknown = answer_to(9, "no such model", false);
  EXPECT_EQ(unknown.query_id(), 9);
  EXPECT_EQ(unknown.error().code(), 5) << unknown.ShortDebugString();
  EXPECT_FALSE(unknown.has_profile());
  Touch("go");
  AwaitDone(ref);
}

TEST_F(WorkerTest, ABrokenStreamLosesNothing) {
  StartWorker();
  // Breaks after two of four chunks.
  const v1::AttemptRef ref = Start("job", "steps=2 chunks=4 " + WaitingScript(4));
  AwaitFile("reached");
  AwaitEvent(ref, [](const auto& e) { return e.number() == 3; });
  frontend_.Acknowledge(ref, 2);
  frontend_.OnHello([&](const v1::WorkerHello& hello) {
    EXPECT_EQ(hello.held_size(), 1);
    EXPECT_EQ(hello.held(0).token(), ref.token());
    v1::HelloReply reply;
    *reply.add_resumed()->mutable_ref() = ref;
    reply.mutable_resumed(0)->set_number(2);
    return reply;
  });
  frontend_.Break();
  Hello();
  EXPECT_EQ(AwaitEvent(ref, [](const auto& e) { return e.number() > 0; }).number(), 3);
  Touch("go");
  AwaitDone(ref);
  EXPECT_TRUE(Bytes("job") == support::FakeOutput(7, 4, 1000));
}

TEST_F(WorkerTest, AFrontendThatRestartsFindsTheRunGoingOn) {
  StartWorker();
  const v1::AttemptRef ref = Start("job", WaitingScript(1));
  AwaitFile("reached");
  frontend_.OnHello([&](const v1::WorkerHello&) {
    v1::HelloReply reply;
    *reply.add_resumed()->mutable_ref() = ref;
    return reply;
  });
  frontend_.Close();
  Touch("go");  // the whole run happens without a frontend
  frontend_.Listen();
  Hello();
  AwaitDone(ref);
  EXPECT_TRUE(Bytes("job") == support::FakeOutput(7, 3, 1000));
}

TEST_F(WorkerTest, AnAttemptThatIsNotResumedIsDropped) {
  StartWorker();
  Start("job", "at=1 do=hang touch=" + folder_ + "/reached");
  AwaitFile("reached");
  frontend_.Break();
  Hello();
  const size_t after = position_;
  AwaitDone(Start("next", ""));
  const auto messages = frontend_.messages();
  for (size_t i = after; i < messages.size(); ++i) {
    EXPECT_NE(messages[i].event().ref().job_id(), "job");
  }
}

TEST_F(WorkerTest, EveryFailureHasItsCause) {
  StartWorker();
  const auto check = [&](const v1::StartAttempt& command, Cause cause, int code,
                         const char* message) {
    const v1::AttemptFailed failed = AwaitFailed(Start(command));
    EXPECT_EQ(failed.cause(), cause) << command.ref().job_id();
    EXPECT_EQ(failed.error().code(), code) << command.ref().job_id();
    EXPECT_THAT(failed.error().message(), HasSubstr(message));
  };
  check(StartCommand("oom", "at=1 do=oom"), v1::AttemptFailed::OUT_OF_MEMORY, 8, "out of memory");
  check(StartCommand("invalid", "at=1 do=invalid"), v1::AttemptFailed::CLIENT, 3, "does not fit");
  check(StartCommand("internal", "at=1 do=internal"), v1::AttemptFailed::INTERNAL, 13, "broke");
  v1::StartAttempt unknown = StartCommand("unknown", "");
  unknown.mutable_request()->set_model("nothing");
  check(unknown, v1::AttemptFailed::MODEL, 5, "nothing");
  v1::StartAttempt broken = StartCommand("broken", "");
  broken.mutable_request()->set_model("broken");
  check(broken, v1::AttemptFailed::MODEL, 9, "model_index.json");
  v1::StartAttempt contradiction = StartCommand("contradiction", "");
  contradiction.mutable_request()->mutable_preview()->set_enabled(true);
  check(contradiction, v1::AttemptFailed::CLIENT, 3, "preview.enabled");
  v1::StartAttempt image = StartCommand("image", "");
  image.mutable_request()->add_conditions()->set_kind(v1::Condition::IMAGE);
  image.mutable_request()->mutable_conditions(0)->set_asset_id("a");
  check(image, v1::AttemptFailed::INTERNAL, 13, "0 condition files for 1");
  Touch("empty");
  fs::resize_file(folder_ + "/empty", 0);
  image.mutable_ref()->set_job_id("image2");
  image.add_condition_files(folder_ + "/empty");
  check(image, v1::AttemptFailed::CLIENT, 3, "conditions[0]: not an image");
  v1::StartAttempt slow = StartCommand("slow", "at=1 do=hang");
  slow.mutable_run_timeout()->set_nanos(50'000'000);
  check(slow, v1::AttemptFailed::RUN_TIMEOUT, 4, "run_timeout");
  // Whatever else took too long may not the next time.
  check(StartCommand("deadline", "at=1 do=deadline"), v1::AttemptFailed::INTERNAL, 14, "slow");
  std::ofstream(folder_ + "/slow") << "slow";
  image.mutable_ref()->set_job_id("image3");
  image.set_condition_files(0, folder_ + "/slow");
  check(image, v1::AttemptFailed::INTERNAL, 14, "conditions[0]: decoding takes longer");
  std::ofstream(folder_ + "/short") << "short";
  image.mutable_ref()->set_job_id("image4");
  image.set_condition_files(0, folder_ + "/short");
  check(image, v1::AttemptFailed::SHORTAGE, 14, "conditions[0]: cannot start");
  // None of it broke the worker.
  AwaitDone(Start("last", ""));
}

TEST_F(WorkerTest, ASecondAttemptAtATimeIsRefused) {
  StartWorker();
  const v1::AttemptRef first = Start("first", WaitingScript(1));
  AwaitFile("reached");
  const v1::AttemptFailed refused = AwaitFailed(Start("second", ""));
  EXPECT_EQ(refused.cause(), v1::AttemptFailed::INTERNAL);
  EXPECT_THAT(refused.error().message(), HasSubstr("1 attempt at a time"));
  Touch("go");
  AwaitDone(first);
}

TEST_F(WorkerTest, LoadAndUnloadAnswerAndShowInHeartbeats) {
  StartWorker();
  const auto await_result = [&] {
    return frontend_.Await(&position_, [](const auto& m) { return m.has_model_result(); })
        .model_result();
  };
  const auto await_loaded = [&](bool loaded) {
    frontend_.Await(&position_, [&](const auto& m) {
      return m.has_heartbeat() && m.heartbeat().models(1).loaded() == loaded;
    });
  };
  SendLoadModel(1, "other");
  v1::ModelCommandResult result = await_result();
  EXPECT_EQ(result.command_id(), 1);
  EXPECT_FALSE(result.has_error());
  // The last heartbeat before the answer shows the change already.
  const auto before = frontend_.messages();
  bool is_loaded = false;
  for (size_t i = 0; i + 1 < position_; ++i) {
    if (before[i].has_heartbeat()) is_loaded = before[i].heartbeat().models(1).loaded();
  }
  EXPECT_TRUE(is_loaded);
  await_loaded(true);
  SendUnloadModel(2, "other");
  EXPECT_FALSE(await_result().has_error());
  await_loaded(false);
  SendLoadModel(3, "broken");
  result = await_result();
  EXPECT_EQ(result.command_id(), 3);
  EXPECT_EQ(result.error().code(), 9);
}

TEST_F(WorkerTest, ALostDeviceIsReportedThenEndsTheProcess) {
  StartWorker();
  const v1::AttemptFailed failed = AwaitFailed(Start("job", "at=1 do=device_lost"));
  EXPECT_EQ(failed.cause(), v1::AttemptFailed::DEVICE_LOST);
  // What comes while it waits for its last words to be acknowledged goes to another.
  EXPECT_EQ(AwaitFailed(Start("late", "")).cause(), v1::AttemptFailed::INTERRUPTED);
  EXPECT_EQ(worker_->Wait(), 70);
}

TEST_F(WorkerTest, ADeviceLostWhileAModelLoadsIsReportedToo) {
  WriteLoadScript("other", "do=device_lost");
  StartWorker();
  v1::StartAttempt command = StartCommand("job", "");
  command.mutable_request()->set_model("other");
  EXPECT_EQ(AwaitFailed(Start(command)).cause(), v1::AttemptFailed::DEVICE_LOST);
  EXPECT_EQ(worker_->Wait(), 70);
}

TEST_F(WorkerTest, AnAttemptThatWaitsWhenTheDeviceIsLostIsInterrupted) {
  WriteLoadScript("other", LoadThatWaits("wait") + " then=device_lost");
  StartWorker();
  SendLoadModel(1, "other");
  AwaitFile("loading");
  const v1::AttemptRef ref = Start("job", "");
  AwaitPulse("job", [](const auto&) { return true; });
  Touch("loaded");
  EXPECT_EQ(AwaitFailed(ref).cause(), v1::AttemptFailed::INTERRUPTED);
  EXPECT_FALSE(Numbered("job").at(1).has_started());
  EXPECT_EQ(worker_->Wait(), 70);
}

TEST_F(WorkerTest, TheDevicesCheckIsAnswered) {
  StartWorker();
  const auto check = [&](int64_t id) {
    v1::FrontendMessage message;
    message.mutable_check_device()->set_command_id(id);
    frontend_.Send(message);
    const v1::ModelCommandResult result =
        frontend_.Await(&position_, [](const auto& m) { return m.has_model_result(); })
            .model_result();
    EXPECT_EQ(result.command_id(), id);
    return result.error();
  };
  EXPECT_EQ(check(1).code(), 0);
  std::ofstream(folder_ + "/check") << "do=wrong";
  const google::rpc::Status wrong = check(2);
  EXPECT_EQ(wrong.code(), 13);
  EXPECT_THAT(wrong.message(), HasSubstr("computes wrongly"));
  fs::remove(folder_ + "/check");
  EXPECT_EQ(check(3).code(), 0);
  AwaitDone(Start("job", ""));
  std::ofstream(folder_ + "/check") << "do=device_lost";
  v1::FrontendMessage message;
  message.mutable_check_device()->set_command_id(4);
  frontend_.Send(message);
  EXPECT_EQ(worker_->Wait(), 70);
}

TEST_F(WorkerTest, PulsesTellStepsAndTheirSeconds) {
  StartWorker();
  const v1::AttemptRef ref = Start("job", WaitingScript(2));
  AwaitFile("reached");
  const v1::AttemptPulse pulse =
      AwaitPulse("job", [](const auto& p) { return p.stage() == v1::DENOISE && p.steps() == 2; });
  EXPECT_EQ(pulse.ref().attempt(), 1);
  EXPECT_EQ(pulse.ref().token(), ref.token());
  EXPECT_EQ(pulse.step_seconds(), support::kFakeStepSeconds);
  EXPECT_GT(pulse.counter(), 2);
  Touch("go");
  AwaitDone(ref);
  // Once it has ended there is nothing to judge, acknowledged or not.
  frontend_.Await(&position_, [](const auto& m) {
    return m.has_heartbeat() && m.heartbeat().attempts_size() == 0;
  });
}

TEST_F(WorkerTest, AFullDiskIsToldAsThatAndPasses) {
  StartWorker();
  AwaitDone(Start("before", ""));
  // A file size limit stands for the full disk: the write fails in the same place.
  struct rlimit old {};
  ASSERT_EQ(prlimit(worker_->pid(), RLIMIT_FSIZE, nullptr, &old), 0);
  const rlimit small{4096, old.rlim_max};
  ASSERT_EQ(prlimit(worker_->pid(), RLIMIT_FSIZE, &small, nullptr), 0);
  const v1::AttemptFailed failed = AwaitFailed(Start("full", "chunks=4 chunk_bytes=4000"));
  EXPECT_EQ(failed.cause(), v1::AttemptFailed::DISK_FULL);
  EXPECT_THAT(failed.error().message(), HasSubstr("spool"));
  ASSERT_EQ(prlimit(worker_->pid(), RLIMIT_FSIZE, &old, nullptr), 0);
  AwaitDone(Start("after", "chunks=4 chunk_bytes=4000"));
}

TEST_F(WorkerTest, AnAttemptWhoseSpoolCannotBeMadeIsReported) {
  StartWorker();
  fs::rename(folder_ + "/data/spool/w1", folder_ + "/data/spool/away");
  const v1::AttemptFailed failed = AwaitFailed(Start("job", ""));
  EXPECT_EQ(failed.cause(), v1::AttemptFailed::INTERNAL);
  EXPECT_THAT(failed.error().message(), HasSubstr("cannot create spool"));
  EXPECT_EQ(Numbered("job").size(), 1u);
  fs::rename(folder_ + "/data/spool/away", folder_ + "/data/spool/w1");
  AwaitDone(Start("next", ""));
}

TEST_F(WorkerTest, TheConfiguredLimitsHoldWhereConditionsAreDecoded) {
  v1::StartAttempt command = StartCommand("job", "");
  command.mutable_request()->add_conditions()->set_kind(v1::Condition::IMAGE);
  command.mutable_request()->mutable_conditions(0)->set_asset_id("a");
  command.add_condition_files(folder_ + "/large");
  Touch("large");
  fs::resize_file(folder_ + "/large", 257u << 20);  // one more than the default allows
  StartWorker();
  EXPECT_THAT(AwaitFailed(Start(command)).error().message(), HasSubstr("larger than the limit"));
  StartWorker("limits: {max_upload_size: 257MiB}\n");
  command.mutable_ref()->set_job_id("raised");
  AwaitDone(Start(command));
}

TEST_F(WorkerTest, AFrontendThatStopsAnsweringIsDialledAgain) {
  frontend_.OnHello([](const v1::WorkerHello&) {
    v1::HelloReply reply;
    reply.mutable_lease()->set_nanos(200'000'000);
    return reply;
  });
  StartWorker();
  frontend_.StopAnsweringHeartbeats();
  Hello();
}

TEST_F(WorkerTest, ARefusedWorkerEndsWithTheReason) {
  frontend_.RefuseHellos(grpc::Status(grpc::StatusCode::UNAUTHENTICATED, "wrong link secret"));
  std::ofstream(folder_ + "/kino.yaml") << "data_dir: " << folder_ << "/data\n"
                                        << "workers: [{name: w1}]\n";
  worker_ = std::make_unique<support::Process>(
      std::vector<std::string>{std::string(KINO_BIN_DIR) + "/fake-worker", "--config",
                               folder_ + "/kino.yaml", "--name", "w1"},
      log_);
  EXPECT_EQ(worker_->Wait(), 1);
  EXPECT_THAT(ReadAll(log_), HasSubstr("wrong link secret"));
}

TEST_F(WorkerTest, LeftOverSpoolsAreRemovedAtTheStart) {
  fs::create_directories(folder_ + "/data/spool/w1");
  std::ofstream(folder_ + "/data/spool/w1/9.spool") << "old";
  StartWorker();
  EXPECT_TRUE(fs::is_empty(folder_ + "/data/spool/w1"));
}

TEST_F(WorkerTest, BadUsageIsRefused) {
  const std::string binary = std::string(KINO_BIN_DIR) + "/fake-worker";
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"--colour"}, {}, {"--config", "/absent.yaml", "--name", "w"}}) {
    std::vector<std::string> command = {binary};
    command.insert(command.end(), arguments.begin(), arguments.end());
    EXPECT_EQ(support::Process(command, log_).Wait(), 2);
  }
  EXPECT_EQ(support::Process({binary, "--version"}, log_).Wait(), 0);
  EXPECT_THAT(ReadAll(log_), HasSubstr(KINO_VERSION));
}

}  // namespace
}  // namespace kino::worker
