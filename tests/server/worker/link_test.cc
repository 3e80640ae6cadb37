// The worker's end of the link alone, by a clock that a test moves.
#include "server/worker/link.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <utility>

#include "absl/time/clock.h"
#include "tests/server/worker/scripted_frontend.h"
#include "tests/support/fake_clock.h"

namespace kino::worker {
namespace {

// Nothing of the link may look at the wall.
class MonotonicOnly final : public scheduler::Clock {
 public:
  absl::Time Now() const override {
    ADD_FAILURE() << "the wall clock was looked at";
    return absl::InfinitePast();
  }
  absl::Duration Monotonic() const override {
    looks_.fetch_add(1);
    return clock_.Monotonic();
  }
  void Advance(absl::Duration duration) { clock_.Advance(duration); }
  int64_t looks() const { return looks_.load(); }

 private:
  scheduler::FakeClock clock_;
  mutable std::atomic<int64_t> looks_{0};
};

class QuietDelegate : public LinkDelegate {
 public:
  v1::WorkerHello Hello() override { return {}; }
  v1::WorkerHeartbeat Heartbeat() override { return {}; }
  void OnStart(v1::StartAttempt) override {}
  void OnDrain() override {}
  void OnLoadModel(v1::LoadModelCommand) override {}
  void OnUnloadModel(v1::UnloadModelCommand) override {}
  void OnProfile(v1::ProfileQuery) override {}
  void OnCheckDevice(v1::CheckDeviceCommand) override {}
};

constexpr absl::Duration kLease = absl::Seconds(4);
constexpr absl::Duration kTick = absl::Milliseconds(500);

class LinkTest : public ::testing::Test {
 protected:
  LinkTest() {
    frontend_.OnHello([](const v1::WorkerHello&) {
      v1::HelloReply reply;
      reply.mutable_lease()->set_seconds(4);
      return reply;
    });
    link_.Start();
    AwaitHello();
    // The answer to the hello has arrived as well: what is held from now on stays.
    AwaitContact();
  }
  ~LinkTest() override {
    link_.Stop();
    frontend_.Close();
    std::filesystem::remove_all(folder_);
  }

  void AwaitHello() {
    frontend_.Await(&position_, [](const auto& m) { return m.has_hello(); });
  }
  // As the worker's main loop comes round.
  void Round(absl::Duration passed = kTick) {
    clock_.Advance(passed);
    link_.CheckLease();
    link_.Notify();
  }
  // A heartbeat of now has been answered.
  void AwaitContact() {
    frontend_.Await(&answered_, [](const auto& m) { return m.has_heartbeat(); });
    for (int i = 0; i < 20000 && link_.last_contact() != clock_.Monotonic(); ++i)
      absl::SleepFor(absl::Milliseconds(1));
    ASSERT_EQ(link_.last_contact(), clock_.Monotonic()) << "no heartbeat was answered";
  }
  int Hellos() const {
    int hellos = 0;
    for (const v1::WorkerMessage& message : frontend_.messages()) hellos += message.has_hello();
    return hellos;
  }

  static std::string MakeFolder() {
    const std::string folder = "/tmp/kino-link-test-" + std::to_string(getpid());
    std::filesystem::create_directories(folder);
    return folder;
  }

  const std::string folder_ = MakeFolder();
  MonotonicOnly clock_;
  HeldAttempts held_{scheduler::RealFiles(), folder_};
  QuietDelegate delegate_;
  ScriptedFrontend frontend_{"unix:" + folder_ + "/link.sock"};
  Link link_{LinkOptions{.address = "unix:" + folder_ + "/link.sock"}, held_, delegate_, clock_};
  size_t position_ = 0, answered_ = 0;
};

TEST_F(LinkTest, AHealthyLinkIsNeitherDialledAgainNorSaidHelloOnTwice) {
  v1::StartAttempt command;
  command.mutable_ref()->set_job_id("job");
  auto attempt = *held_.Add(command);
  int64_t appended = 0;
  const int rounds = static_cast<int>(20 * (kLease / kTick));
  int64_t looks = clock_.looks();
  int restless = 0;
  for (int i = 0; i < rounds; ++i) {
    if (i % 3 == 0) {
      v1::AttemptEvent event;
      event.mutable_started();
      ASSERT_TRUE(attempt->spool().Append(std::move(event)).ok());
      ++appended;
    }
    Round();
    ASSERT_NO_FATAL_FAILURE(AwaitContact());
    // AwaitContact looks too, once for each millisecond.
    restless += clock_.looks() - std::exchange(looks, clock_.looks()) > 1000;
  }
  EXPECT_LT(restless, rounds / 2) << "its threads do not sleep";
  // Events go out behind the heartbeat of their round.
  frontend_.Await(&position_, [&](const auto& m) { return m.event().number() == appended; });
  EXPECT_EQ(Hellos(), 1);
  std::map<int64_t, int> times;
  for (const v1::WorkerMessage& message : frontend_.messages()) {
    if (message.has_event()) ++times[message.event().number()];
  }
  EXPECT_EQ(static_cast<int64_t>(times.size()), appended);
  for (const auto& [number, count] : times) EXPECT_EQ(count, 1) << "event " << number;
}

TEST_F(LinkTest, ASilentFrontendIsDialledAgainAfterTheLease) {
  frontend_.StopAnsweringHeartbeats();
  for (int i = 0; i < kLease / kTick; ++i) {
    EXPECT_EQ(Hellos(), 1);
    Round();
  }
  // The back-off passes by the same clock.
  for (int i = 0; i < 20000 && Hellos() < 2; ++i) {
    Round(absl::Milliseconds(10));
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_EQ(Hellos(), 2);
}

TEST_F(LinkTest, AProcessThatStoodStillListensBeforeItBreaksTheStream) {
  for (int i = 0; i < 5; ++i) {
    // The main loop is the first to run again.
    Round(absl::Hours(1));
    ASSERT_NO_FATAL_FAILURE(AwaitContact());
    Round();
    ASSERT_NO_FATAL_FAILURE(AwaitContact());
  }
  EXPECT_EQ(Hellos(), 1);
}

TEST_F(LinkTest, AHeartbeatIsSentEachIntervalAndNotBefore) {
  const auto heartbeats = [this] {
    int count = 0;
    for (const v1::WorkerMessage& message : frontend_.messages()) count += message.has_heartbeat();
    return count;
  };
  EXPECT_EQ(heartbeats(), 1);
  // An event shows that the writer came round; no time has passed.
  v1::StartAttempt command;
  command.mutable_ref()->set_job_id("job");
  auto attempt = *held_.Add(command);
  v1::AttemptEvent event;
  event.mutable_started();
  ASSERT_TRUE(attempt->spool().Append(std::move(event)).ok());
  link_.Notify();
  frontend_.Await(&position_, [](const auto& m) { return m.has_event(); });
  EXPECT_EQ(heartbeats(), 1);
  Round(absl::Milliseconds(20));
  ASSERT_NO_FATAL_FAILURE(AwaitContact());
  EXPECT_EQ(heartbeats(), 2);
}

TEST_F(LinkTest, CancelEndsAWaitingAttemptWithoutTheEngineThread) {
  v1::StartAttempt command;
  command.mutable_ref()->set_job_id("job");
  command.mutable_ref()->set_token("t");
  auto attempt = *held_.Add(command);
  v1::FrontendMessage message;
  *message.mutable_cancel()->mutable_ref() = command.ref();
  frontend_.Send(message);
  const v1::AttemptEvent event =
      frontend_.Await(&position_, [](const auto& m) { return m.has_event(); }).event();
  EXPECT_EQ(event.number(), 1);
  EXPECT_EQ(event.failed().cause(), v1::AttemptFailed::CANCELLED_BY_US);
  frontend_.Acknowledge(command.ref(), 1);
  for (int i = 0; i < 20000 && !held_.empty(); ++i) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_TRUE(held_.empty());
}

}  // namespace
}  // namespace kino::worker
