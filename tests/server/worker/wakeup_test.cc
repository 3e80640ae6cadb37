#include "server/worker/wakeup.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace kino::worker {
namespace {

TEST(WakeupTest, ASignalBeforeTheSleepIsNotLost) {
  Wakeup wakeup;
  wakeup.Signal();
  wakeup.Sleep(absl::InfiniteDuration());
}

TEST(WakeupTest, ASignalEndsTheSleepOfAnotherThread) {
  Wakeup wakeup;
  std::atomic<bool> is_set{false};
  std::thread sleeper([&] {
    while (!is_set.load()) wakeup.Sleep(absl::InfiniteDuration());
  });
  is_set.store(true);
  wakeup.Signal();
  sleeper.join();
}

TEST(WakeupTest, SleepsEndByThemselvesAndTakeOneSignalEach) {
  Wakeup wakeup;
  wakeup.Signal();
  wakeup.Signal();
  wakeup.Sleep(absl::InfiniteDuration());
  const auto begin = std::chrono::steady_clock::now();
  wakeup.Sleep(absl::Milliseconds(20));
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(20));
  wakeup.Sleep(-absl::InfiniteDuration());  // the time is long over
}

}  // namespace
}  // namespace kino::worker
