// The whole worker in this process on a disk that fails: whichever call fails, with whichever
// error, the frontend gets each event once and in order, and an end with the right cause; the next
// attempt finds the worker as it was.
#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/worker/worker.h"
#include "tests/scheduler/files/simulated_disk.h"
#include "tests/server/worker/scripted_frontend.h"
#include "tests/support/fake_engine.h"
#include "tests/support/temp_dir.h"

namespace kino::worker {
namespace {

using scheduler::DiskCall;
using Cause = v1::AttemptFailed::Cause;

constexpr int kChunks = 5, kChunkBytes = 3000;

class DiskFaultsTest : public ::testing::Test {
 protected:
  DiskFaultsTest() {
    folder_.Write("good/model_index.json", "{}");
    options_.name = "w1";
    options_.address = "unix:" + folder_.path() + "/link.sock";
    options_.engine.device = "cpu";
    options_.spool_folder = folder_.path() + "/spool";
    options_.files = &disk_;
    config::ModelConfig& model = options_.models.emplace_back();
    model.name = "good";
    model.folder = folder_.path() + "/good";
    worker_ = std::thread([this] {
      exit_code_ = RunWorker(
          options_, clock_,
          [](const engine::EngineOptions&) -> absl::StatusOr<std::unique_ptr<engine::Engine>> {
            return std::make_unique<support::FakeEngine>();
          },
          [](const std::string&, engine::ConditionKind, const media::DecodeOptions&)
              -> absl::StatusOr<engine::MediaInput> { return absl::InternalError("no media"); });
    });
    frontend_.Await(&position_, [](const auto& m) { return m.has_hello(); });
  }
  ~DiskFaultsTest() override {
    v1::FrontendMessage message;
    message.mutable_drain();
    frontend_.Send(message);
    worker_.join();
    EXPECT_EQ(exit_code_, kExitDrained);
    frontend_.Close();
  }

  // Runs an attempt as the frontend does: takes each event, acknowledges it, and holds the bytes
  // against what the run puts out.
  v1::AttemptEvent Run(const std::string& job) {
    const v1::AttemptRef ref = frontend_.Start(
        StartCommand(job, absl::StrCat("steps=1 chunks=", kChunks, " chunk_bytes=", kChunkBytes)));
    std::string bytes;
    for (int64_t number = 1;; ++number) {
      const v1::AttemptEvent event = NextOf(job);
      EXPECT_EQ(event.number(), number) << event.ShortDebugString();
      if (event.has_chunk()) {
        EXPECT_EQ(event.chunk().offset(), static_cast<int64_t>(bytes.size()));
        bytes += event.chunk().data();
      }
      frontend_.Acknowledge(ref, event.number());
      if (event.has_started() || event.has_chunk()) continue;
      const std::string whole = support::FakeOutput(7, kChunks, kChunkBytes);
      EXPECT_TRUE(whole.substr(0, bytes.size()) == bytes);
      EXPECT_TRUE(event.has_failed() || bytes.size() == whole.size());
      return event;
    }
  }
  v1::AttemptEvent NextOf(const std::string& job) {
    return frontend_
        .Await(&position_,
               [&](const auto& m) {
                 return m.event().ref().job_id() == job && m.event().number() > 0;
               })
        .event();
  }
  // The attempt is forgotten once its last event is acknowledged, and its file with it.
  void AwaitUnlinks(int64_t count) {
    for (int i = 0; i < 60000 && disk_.calls(DiskCall::kUnlink) < count; ++i)
      absl::SleepFor(absl::Milliseconds(1));
    ASSERT_EQ(disk_.calls(DiskCall::kUnlink), count);
  }

  // Each call of that kind of an attempt fails once with each error. Gives how many there are.
  int Sweep(DiskCall call, const std::map<int, Cause>& causes) {
    int count = 0;
    for (const auto& [error, cause] : causes) {
      for (count = 0;; ++count) {
        SCOPED_TRACE(absl::StrCat(scheduler::DiskCallName(call), " ", count, ", error ", error));
        const int64_t unlinks = disk_.calls(DiskCall::kUnlink);
        disk_.PlanFault({.calls = {call}, .path_part = ".spool", .count = count, .error = error});
        const v1::AttemptEvent end =
            Run(absl::StrCat(static_cast<int>(call), "-", error, "-", count));
        const bool has_file = call != DiskCall::kOpen || disk_.faults_struck() == 0;
        if (has_file) AwaitUnlinks(unlinks + 1);
        if (::testing::Test::HasFailure()) return count;
        if (disk_.faults_struck() == 0) {
          EXPECT_TRUE(end.has_done()) << end.ShortDebugString();
          break;
        }
        if (cause == v1::AttemptFailed::CAUSE_UNSPECIFIED) {
          EXPECT_TRUE(end.has_done()) << end.ShortDebugString();
        } else {
          EXPECT_EQ(end.failed().cause(), cause) << end.ShortDebugString();
          EXPECT_NE(end.failed().error().message().find("spool"), std::string::npos);
        }
      }
    }
    return count;
  }

  kino::testing::TempDir folder_;
  scheduler::SimulatedDisk disk_;
  scheduler::SystemClock clock_;
  WorkerOptions options_;
  ScriptedFrontend frontend_{"unix:" + folder_.path() + "/link.sock"};
  size_t position_ = 0;
  int exit_code_ = -1;
  std::thread worker_;
};

// Neither a full disk nor a shortage counts as an attempt (tests/server/frontend/link_test.py).
const std::map<int, Cause> kEachByItself = {{ENOSPC, v1::AttemptFailed::DISK_FULL},
                                            {EIO, v1::AttemptFailed::INTERNAL},
                                            {EMFILE, v1::AttemptFailed::SHORTAGE}};
const std::map<int, Cause> kNothingIsLost = {{ENOSPC, v1::AttemptFailed::CAUSE_UNSPECIFIED},
                                             {EIO, v1::AttemptFailed::CAUSE_UNSPECIFIED},
                                             {EMFILE, v1::AttemptFailed::CAUSE_UNSPECIFIED}};

TEST_F(DiskFaultsTest, MakingTheSpool) { EXPECT_EQ(Sweep(DiskCall::kOpen, kEachByItself), 1); }

TEST_F(DiskFaultsTest, WritingTheSpool) {
  EXPECT_EQ(Sweep(DiskCall::kWrite, kEachByItself), kChunks);
}

TEST_F(DiskFaultsTest, ReadingTheSpoolBack) {
  EXPECT_EQ(Sweep(DiskCall::kRead, kEachByItself), kChunks);
}

TEST_F(DiskFaultsTest, GivingTheSpoolsSpaceBack) {
  EXPECT_EQ(Sweep(DiskCall::kPunch, kNothingIsLost), kChunks);
}

TEST_F(DiskFaultsTest, RemovingTheSpool) { EXPECT_EQ(Sweep(DiskCall::kUnlink, kNothingIsLost), 1); }

}  // namespace
}  // namespace kino::worker
