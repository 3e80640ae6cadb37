// The worker process against a scripted frontend: fake-worker is kino-worker with
// tests/support/fake_engine inside.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tests/server/worker/scripted_frontend.h"
#include "tests/support/process.h"

namespace kino::worker {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;
using Cause = v1::AttemptFailed::Cause;

inline const std::string kSecret(64, '5');

inline std::string ReadAll(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

class WorkerTest : public ::testing::Test {
 protected:
  WorkerTest()
      : folder_("/tmp/kino-worker-test-" + std::to_string(getpid())),
        frontend_((MakeFolders(), "unix:" + folder_ + "/data/run/link.sock")) {}
  ~WorkerTest() override {
    worker_.reset();
    frontend_.Close();
    if (HasFailure()) std::cerr << ReadAll(log_);
    fs::remove_all(folder_);
  }

  void MakeFolders() {
    fs::remove_all(folder_);
    fs::create_directories(folder_ + "/data/run");
    fs::permissions(folder_ + "/data/run", fs::perms::owner_all);
    std::ofstream(folder_ + "/data/run/link.secret") << kSecret;
    fs::permissions(folder_ + "/data/run/link.secret",
                    fs::perms::owner_read | fs::perms::owner_write);
    for (const char* model : {"good", "other", "broken"}) {
      fs::create_directories(folder_ + "/" + model);
      if (std::string(model) != "broken") {
        std::ofstream(folder_ + "/" + model + "/model_index.json") << "{}";
      }
    }
  }
  void StartWorker(const std::string& link = "", std::vector<std::string> extra = {},
                   const std::string& limits = "") {
    std::ofstream(folder_ + "/kino.yaml")
        << "data_dir: " << folder_ << "/data\n"
        << "workers: [{name: w1, device: cpu" << limits << "}]\n"
        << "models: [{name: good, folder: good}, {name: other, folder: other},"
        << " {name: broken, folder: broken},"
        << " {name: demo, folder: " << KINO_SOURCE_DIR << "/models/demo}]\n"
        << link;
    std::vector<std::string> command = {std::string(KINO_BIN_DIR) + "/fake-worker", "--config",
                                        folder_ + "/kino.yaml", "--name", "w1"};
    command.insert(command.end(), extra.begin(), extra.end());
    setenv("KINO_FAKE_CHECK_SCRIPT", (folder_ + "/check").c_str(), 1);
    worker_.reset();  // one at a time has the spool
    worker_ = std::make_unique<support::Process>(command, log_);
    Hello();
  }

  v1::WorkerHello Hello() {
    return frontend_.Await(&position_, [](const auto& m) { return m.has_hello(); }).hello();
  }
  v1::AttemptRef Start(const v1::StartAttempt& command) { return frontend_.Start(command); }
  v1::AttemptRef Start(const std::string& job, const std::string& prompt) {
    return Start(StartCommand(job, prompt));
  }
  v1::AttemptEvent AwaitEvent(const v1::AttemptRef& ref,
                              std::function<bool(const v1::AttemptEvent&)> wanted) {
    return frontend_
        .Await(&position_,
               [&](const v1::WorkerMessage& m) {
                 return m.has_event() && m.event().ref().job_id() == ref.job_id() &&
                        wanted(m.event());
               })
        .event();
  }
  v1::AttemptEvent AwaitEnd(const v1::AttemptRef& ref) {
    return AwaitEvent(ref, [](const auto& e) { return e.has_done() || e.has_failed(); });
  }
  v1::AttemptDone AwaitDone(const v1::AttemptRef& ref) {
    const v1::AttemptEvent end = AwaitEnd(ref);
    EXPECT_TRUE(end.has_done()) << end.ShortDebugString();
    return end.done();
  }
  v1::AttemptFailed AwaitFailed(const v1::AttemptRef& ref) {
    const v1::AttemptEvent end = AwaitEnd(ref);
    EXPECT_TRUE(end.has_failed()) << end.ShortDebugString();
    return end.failed();
  }
  void AwaitFile(const std::string& name) {
    for (int i = 0; i < 60000 && !fs::exists(folder_ + "/" + name); ++i) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    ASSERT_TRUE(fs::exists(folder_ + "/" + name)) << name;
  }
  void Touch(const std::string& name) { std::ofstream(folder_ + "/" + name) << "x"; }
  // A script whose step `at` tells that it is reached, then waits for the file "go".
  std::string WaitingScript(int at) {
    return "at=" + std::to_string(at) + " do=wait touch=" + folder_ + "/reached until=" + folder_ +
           "/go";
  }
  void WriteLoadScript(const std::string& model, const std::string& script) {
    std::ofstream(folder_ + "/" + model + "/load_script") << script;
  }
  // Tells by the file "loading" that it is under way, then waits for the file "loaded".
  std::string LoadThatWaits(const std::string& what) {
    return "do=" + what + " touch=" + folder_ + "/loading until=" + folder_ + "/loaded";
  }
  void SendLoadModel(int64_t id, const std::string& model) {
    v1::FrontendMessage message;
    message.mutable_load_model()->set_command_id(id);
    message.mutable_load_model()->set_model(model);
    frontend_.Send(message);
  }
  void SendUnloadModel(int64_t id, const std::string& model) {
    v1::FrontendMessage message;
    message.mutable_unload_model()->set_command_id(id);
    message.mutable_unload_model()->set_model(model);
    frontend_.Send(message);
  }
  void Cancel(const v1::AttemptRef& ref) {
    v1::FrontendMessage message;
    *message.mutable_cancel()->mutable_ref() = ref;
    frontend_.Send(message);
  }
  v1::AttemptPulse AwaitPulse(const std::string& job,
                              std::function<bool(const v1::AttemptPulse&)> wanted) {
    v1::AttemptPulse found;
    frontend_.Await(&position_, [&](const v1::WorkerMessage& m) {
      for (const v1::AttemptPulse& pulse : m.heartbeat().attempts()) {
        if (pulse.ref().job_id() != job || !wanted(pulse)) continue;
        found = pulse;
        return true;
      }
      return false;
    });
    return found;
  }
  // The numbered events of `job` in the order received; duplicates replaced by their later copy.
  std::map<int64_t, v1::AttemptEvent> Numbered(const std::string& job) {
    std::map<int64_t, v1::AttemptEvent> events;
    for (const v1::WorkerMessage& m : frontend_.messages()) {
      if (m.has_event() && m.event().ref().job_id() == job && m.event().number() > 0) {
        events[m.event().number()] = m.event();
      }
    }
    return events;
  }
  std::string Bytes(const std::string& job) {
    std::string bytes;
    for (const auto& [number, event] : Numbered(job)) {
      if (!event.has_chunk()) continue;
      EXPECT_EQ(event.chunk().offset(), static_cast<int64_t>(bytes.size()));
      EXPECT_LE(event.chunk().data().size(), 256u << 10);
      bytes += event.chunk().data();
    }
    return bytes;
  }

  const std::string folder_;
  const std::string log_ = "/tmp/kino-worker-test-" + std::to_string(getpid()) + ".log";
  ScriptedFrontend frontend_;
  std::unique_ptr<support::Process> worker_;
  size_t position_ = 0;
};

}  // namespace kino::worker
