// The whole worker in this process, by a clock that a test moves.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/worker/worker.h"
#include "tests/server/worker/scripted_frontend.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_engine.h"

namespace kino::worker {
namespace {

namespace fs = std::filesystem;

// What the scripted frontend asks for.
constexpr absl::Duration kHeartbeat = absl::Milliseconds(20);

// Counts the looks of the thread that made it so.
class CountingClock final : public scheduler::Clock {
 public:
  absl::Time Now() const override { return clock_.Now(); }
  absl::Duration Monotonic() const override {
    if (std::this_thread::get_id() == main_loop_.load()) looks_.fetch_add(1);
    return clock_.Monotonic();
  }
  void Advance(absl::Duration duration) { clock_.Advance(duration); }
  void JumpWall(absl::Duration duration) { clock_.JumpWall(duration); }
  void CountThisThread() { main_loop_.store(std::this_thread::get_id()); }
  int64_t looks() const { return looks_.load(); }

 private:
  scheduler::FakeClock clock_;
  std::atomic<std::thread::id> main_loop_{};
  mutable std::atomic<int64_t> looks_{0};
};

class FakeClockTest : public ::testing::Test {
 protected:
  FakeClockTest() {
    options_.name = "w1";
    options_.address = "unix:" + folder_ + "/link.sock";
    options_.engine.device = "cpu";
    options_.spool_folder = folder_ + "/spool";
    for (const char* const name : {"good", "slow"}) {
      fs::create_directories(folder_ + "/" + name);
      std::ofstream(folder_ + "/" + name + "/model_index.json") << "{}";
      config::ModelConfig& model = options_.models.emplace_back();
      model.name = name;
      model.folder = folder_ + "/" + name;
    }
    std::ofstream(folder_ + "/slow/load_script")
        << "do=wait touch=" << folder_ << "/loading until=" << folder_ << "/loaded";
    // What the worker holds is resumed, whatever happens to the stream.
    frontend_.OnHello([](const v1::WorkerHello& hello) {
      v1::HelloReply reply;
      for (const v1::AttemptRef& ref : hello.held()) *reply.add_resumed()->mutable_ref() = ref;
      reply.mutable_lease()->set_seconds(2);
      return reply;
    });
    worker_ = std::thread([this] {
      clock_.CountThisThread();
      exit_code_ = RunWorker(
          options_, clock_,
          [](const engine::EngineOptions&) -> absl::StatusOr<std::unique_ptr<engine::Engine>> {
            return std::make_unique<support::FakeEngine>();
          },
          [](const std::string&, engine::ConditionKind,
             const media::DecodeOptions&) -> absl::StatusOr<engine::MediaInput> {
            return engine::MediaInput{.width = 1, .height = 1, .num_frames = 1, .rgb = {0, 0, 0}};
          });
    });
    frontend_.Await(&position_, [](const auto& m) { return m.has_hello(); });
  }
  ~FakeClockTest() override {
    v1::FrontendMessage message;
    message.mutable_drain();
    frontend_.Send(message);
    worker_.join();
    EXPECT_EQ(exit_code_, kExitDrained);
    frontend_.Close();
    fs::remove_all(folder_);
  }

  static std::string MakeFolder() {
    const std::string folder = "/tmp/kino-fake-clock-test-" + std::to_string(getpid());
    fs::remove_all(folder);
    fs::create_directories(folder);
    return folder;
  }
  v1::AttemptEvent AwaitEnd(const std::string& job) {
    const v1::AttemptEvent end =
        frontend_
            .Await(&position_,
                   [&](const auto& m) {
                     return m.event().ref().job_id() == job &&
                            (m.event().has_done() || m.event().has_failed());
                   })
            .event();
    frontend_.Acknowledge(end.ref(), end.number());
    return end;
  }
  v1::AttemptPulse AwaitPulse(std::function<bool(const v1::AttemptPulse&)> wanted) {
    for (int i = 0; i < 1000; ++i) {
      clock_.Advance(kHeartbeat);
      const v1::WorkerHeartbeat heartbeat =
          frontend_.Await(&position_, [](const auto& m) { return m.has_heartbeat(); }).heartbeat();
      for (const v1::AttemptPulse& pulse : heartbeat.attempts()) {
        if (wanted(pulse)) return pulse;
      }
    }
    ADD_FAILURE() << "the awaited pulse did not come";
    return {};
  }
  void AwaitFile(const std::string& name) {
    for (int i = 0; i < 20000 && !fs::exists(folder_ + "/" + name); ++i)
      absl::SleepFor(absl::Milliseconds(1));
    ASSERT_TRUE(fs::exists(folder_ + "/" + name)) << name;
  }
  void Touch(const std::string& name) { std::ofstream(folder_ + "/" + name) << "x"; }
  std::string WaitingScript() {
    return absl::StrCat("at=1 do=wait touch=", folder_, "/reached until=", folder_, "/go");
  }
  int Hellos() const {
    int hellos = 0;
    for (const v1::WorkerMessage& message : frontend_.messages()) hellos += message.has_hello();
    return hellos;
  }
  // One heartbeat after another comes as the clock goes on, each with the attempt in it.
  void ExpectHeartbeats(int count) {
    for (int i = 0; i < count; ++i) {
      clock_.Advance(kHeartbeat);
      frontend_.Await(&position_, [](const auto& m) { return m.heartbeat().attempts_size() == 1; });
    }
  }

  // Time goes by while the main loop comes round and round.
  void Pass(absl::Duration duration, absl::Duration step = absl::Milliseconds(900)) {
    for (absl::Duration passed; passed < duration; passed += step) {
      clock_.Advance(step);
      // Two looks are a round's; the one under way may have looked before.
      const int64_t looks = clock_.looks() + 4;
      for (int i = 0; i < 20000 && clock_.looks() < looks; ++i)
        absl::SleepFor(absl::Milliseconds(1));
    }
  }
  // The frontend is there again. The back-off, of two seconds at most, passes in steps, each of
  // which leaves the worker time to dial.
  v1::WorkerHello ComeBack() {
    frontend_.Listen();
    for (int i = 0; i < 11; ++i) {
      Pass(absl::Milliseconds(200), absl::Milliseconds(200));
      const auto messages = frontend_.messages();
      for (; position_ < messages.size(); ++position_) {
        if (messages[position_].has_hello()) return messages[position_++].hello();
      }
    }
    return frontend_.Await(&position_, [](const auto& m) { return m.has_hello(); }).hello();
  }

  const std::string folder_ = MakeFolder();
  WorkerOptions options_;
  CountingClock clock_;
  ScriptedFrontend frontend_{"unix:" + folder_ + "/link.sock"};
  size_t position_ = 0;
  int exit_code_ = -1;
  std::thread worker_;
};

TEST_F(FakeClockTest, AWallClockThatJumpsLosesNoLeaseAndNoHeartbeat) {
  frontend_.Start(StartCommand("job", WaitingScript()));
  AwaitFile("reached");
  ExpectHeartbeats(1);
  for (const absl::Duration jump :
       {absl::Hours(1), -absl::Hours(1), -absl::Hours(1), absl::Hours(1)}) {
    clock_.JumpWall(jump);
    ExpectHeartbeats(5);
  }
  EXPECT_EQ(Hellos(), 1);
  Touch("go");
  EXPECT_TRUE(AwaitEnd("job").has_done());
}

TEST_F(FakeClockTest, AProcessThatStoodStillGivesNothingUp) {
  frontend_.Start(StartCommand("job", WaitingScript()));
  AwaitFile("reached");
  ExpectHeartbeats(1);
  for (int i = 0; i < 3; ++i) {
    // Far beyond lease and grace.
    clock_.Advance(absl::Hours(1));
    ExpectHeartbeats(3);
  }
  EXPECT_EQ(Hellos(), 1);
  Touch("go");
  EXPECT_TRUE(AwaitEnd("job").has_done());
}

TEST_F(FakeClockTest, AttemptsGoOnHoweverLongTheFrontendIsAway) {
  frontend_.Start(StartCommand("job", WaitingScript()));
  AwaitFile("reached");
  ExpectHeartbeats(1);
  frontend_.Close();
  Pass(absl::Seconds(60));  // a lease has 2
  EXPECT_EQ(ComeBack().held_size(), 1);
  ExpectHeartbeats(1);
  Touch("go");
  EXPECT_TRUE(AwaitEnd("job").has_done());
}

TEST_F(FakeClockTest, RunTimeoutCountsFromTheMomentTheEngineThreadTakesTheAttemptUp) {
  v1::FrontendMessage load;
  load.mutable_load_model()->set_command_id(1);
  load.mutable_load_model()->set_model("slow");
  frontend_.Send(load);
  AwaitFile("loading");
  v1::StartAttempt command = StartCommand("job", WaitingScript());
  command.mutable_run_timeout()->set_seconds(60);
  frontend_.Start(command);
  AwaitPulse([](const auto& pulse) { return pulse.stage() == v1::STAGE_UNSPECIFIED; });
  clock_.Advance(absl::Hours(1));
  ExpectHeartbeats(3);
  for (const v1::WorkerMessage& message : frontend_.messages())
    EXPECT_FALSE(message.event().has_started()) << "it still waits";
  Touch("loaded");
  AwaitFile("reached");
  EXPECT_EQ(AwaitPulse([](const auto& pulse) { return pulse.steps() == 1; }).stage(), v1::DENOISE);
  Touch("go");
  EXPECT_TRUE(AwaitEnd("job").has_done()) << "the hour of waiting was not the run's";
}

TEST_F(FakeClockTest, ARunThatExceedsItsTimeoutFailsWithACauseOfItsOwn) {
  v1::StartAttempt command =
      StartCommand("job", absl::StrCat("at=1 do=hang touch=", folder_, "/reached"));
  command.mutable_run_timeout()->set_seconds(60);
  frontend_.Start(command);
  AwaitFile("reached");
  clock_.Advance(absl::Seconds(59));
  ExpectHeartbeats(1);
  clock_.Advance(absl::Seconds(2));
  const v1::AttemptEvent end = AwaitEnd("job");
  EXPECT_EQ(end.failed().cause(), v1::AttemptFailed::RUN_TIMEOUT);
  EXPECT_EQ(end.failed().error().code(), 4);
}

}  // namespace
}  // namespace kino::worker
