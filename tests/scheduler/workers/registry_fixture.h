// A registry under a clock that tests move, and what its tests do with it again and again.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/workers/registry.h"
#include "tests/support/fake_clock.h"

namespace kino::scheduler {

inline WorkerHello Hello(const std::string& name, int64_t process_id = 100,
                         std::vector<AttemptRef> held = {}) {
  return {.name = name,
          .process_id = process_id,
          .device = "cpu",
          .max_attempts = 1,
          .models = {{"ltx", false}},
          .held = std::move(held)};
}

inline WorkerHello HelloWithSlots(const std::string& name, int slots) {
  WorkerHello hello = Hello(name);
  hello.max_attempts = slots;
  return hello;
}

class RegistryTest : public testing::Test {
 protected:
  SessionId Connect(const WorkerHello& hello) {
    const auto result = registry_.Hello(hello);
    EXPECT_TRUE(result.ok()) << result.status();
    return result->session;
  }
  SessionId Connect(const std::string& name, int64_t process_id = 100) {
    return Connect(Hello(name, process_id));
  }
  void Give(const std::string& worker, const AttemptRef& ref,
            absl::Duration run_timeout = absl::InfiniteDuration()) {
    const auto slot = registry_.Reserve(worker);
    ASSERT_TRUE(slot);
    ASSERT_TRUE(registry_.Assign(*slot, ref, run_timeout).ok());
  }
  absl::Status Beat(SessionId session, const std::vector<AttemptPulse>& pulses = {},
                    int64_t counter = 0) {
    return registry_.Heartbeat(session, counter, pulses, {{"ltx", true}});
  }
  // Time passes, and somebody looks twice a second, as promised. Stops at the first loss.
  std::vector<LostAttempt> Pass(
      absl::Duration duration, const std::function<void()>& each_second = [] {}) {
    std::vector<LostAttempt> lost = registry_.TakeLost();
    for (int i = 0; lost.empty() && i < duration / absl::Milliseconds(500); ++i) {
      clock_.Advance(absl::Milliseconds(500));
      if (i % 2 == 1) each_second();
      lost = registry_.TakeLost();
    }
    return lost;
  }
  // How long it takes until something is lost.
  absl::Duration TimeUntilLost(const std::function<void()>& each_second = [] {}) {
    const absl::Duration begin = clock_.Monotonic();
    last_lost_ = Pass(absl::Hours(24), each_second);
    return last_lost_.empty() ? absl::InfiniteDuration() : clock_.Monotonic() - begin;
  }
  bool IsReady(const std::string& name) {
    for (const ReadyWorker& worker : registry_.Ready()) {
      if (worker.name == name) return true;
    }
    return false;
  }

  const AttemptRef a_{"job-a", 1, "token-a"}, b_{"job-b", 2, "token-b"};
  FakeClock clock_;
  WorkerRegistry registry_{LeaseOptions(), clock_};
  std::vector<LostAttempt> last_lost_;
};

}  // namespace kino::scheduler
