// Executors: lines, bounds, turns.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "server/frontend/lifecycle/executor.h"

namespace kino::frontend {
namespace {

// One thread that is kept busy until it is let go, so that what is posted waits.
class HeldExecutor {
 public:
  explicit HeldExecutor(ExecutorLimits limits) : executor_("held", 1, limits) {
    absl::Notification is_held;
    executor_.Post([this, &is_held] {
      is_held.Notify();
      go_.WaitForNotification();
    });
    is_held.WaitForNotification();
  }
  bool TryPost(const std::string& caller, char mark) {
    Executor::Task task = [this, mark] { order_ += mark; };
    const bool is_posted = executor_.TryPost(caller, task);
    EXPECT_EQ(is_posted, task == nullptr) << "a refused task is as it was";
    return is_posted;
  }
  void Post(char mark) {
    executor_.Post([this, mark] { order_ += mark; });
  }
  // What ran, in order.
  std::string LetGo() {
    go_.Notify();
    executor_.Stop();
    return order_;
  }
  Executor& executor() { return executor_; }

 private:
  absl::Notification go_;
  std::string order_;
  Executor executor_;
};

TEST(ExecutorTest, StopRunsWhatWasPostedAndOneThreadKeepsTheOrder) {
  std::string order;
  Executor strand("strand", 1);
  for (char c = 'a'; c <= 'z'; ++c) strand.Post([&order, c] { order += c; });
  strand.Stop();
  EXPECT_EQ(order, "abcdefghijklmnopqrstuvwxyz");
  strand.Post([&order] { order += '!'; });
  Executor::Task late = [&order] { order += '!'; };
  EXPECT_FALSE(strand.TryPost("late", late));
  EXPECT_EQ(order.size(), 26u);
}

TEST(ExecutorTest, CallersTakeTurnsAndSoDoesTheServer) {
  HeldExecutor held({.waiting = 100, .waiting_per_caller = 100});
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(held.TryPost("flood", 'f'));
  EXPECT_TRUE(held.TryPost("one", 'a'));
  EXPECT_TRUE(held.TryPost("one", 'b'));
  held.Post('s');
  held.Post('t');
  EXPECT_EQ(held.LetGo(), "fasfbtff");
}

TEST(ExecutorTest, OneTooManyOfACallerIsRefusedAndOthersAreNot) {
  HeldExecutor held({.waiting = 100, .waiting_per_caller = 2});
  EXPECT_TRUE(held.TryPost("a", 'a'));
  EXPECT_TRUE(held.TryPost("a", 'a'));
  EXPECT_FALSE(held.TryPost("a", 'x'));
  EXPECT_TRUE(held.TryPost("b", 'b'));
  EXPECT_EQ(held.LetGo(), "aba");
}

TEST(ExecutorTest, OneTooManyOfAllIsRefusedAndTheServersOwnNever) {
  HeldExecutor held({.waiting = 3, .waiting_per_caller = 2});
  for (int i = 0; i < 1000; ++i) held.Post('s');
  EXPECT_TRUE(held.TryPost("a", 'a'));
  EXPECT_TRUE(held.TryPost("b", 'b'));
  EXPECT_TRUE(held.TryPost("c", 'c'));
  EXPECT_FALSE(held.TryPost("d", 'x'));
  held.Post('s');
  const std::string order = held.LetGo();
  EXPECT_EQ(order.size(), 1004u);
  EXPECT_EQ(order.substr(0, 6), "sabcss");
}

TEST(ExecutorTest, WhatHasRunMakesRoomAgain) {
  Executor executor("room", 1, {.waiting = 1, .waiting_per_caller = 1});
  for (int i = 0; i < 100; ++i) {
    absl::Notification has_run;
    Executor::Task task = [&has_run] { has_run.Notify(); };
    ASSERT_TRUE(executor.TryPost("a", task)) << i;
    has_run.WaitForNotification();
  }
}

TEST(ExecutorTest, CallerOfAnyNameIsNotTheServer) {
  HeldExecutor held({.waiting = 1, .waiting_per_caller = 1});
  held.Post('s');
  EXPECT_TRUE(held.TryPost("", 'a'));
  EXPECT_FALSE(held.TryPost("", 'x'));
  EXPECT_EQ(held.LetGo(), "sa");
}

TEST(ExecutorDeathTest, ASecondRepeatedTaskWouldEndTheFirst) {
  EXPECT_DEATH(
      {
        Executor executor("repeat", 1);
        executor.Repeat(absl::Hours(1), [] {});
        executor.Repeat(absl::Hours(1), [] {});
      },
      "");
}

TEST(ExecutorTest, RepeatedTaskHasItsTurnThoughACallerNeverPauses) {
  Executor executor("repeat", 1, {.waiting = 100, .waiting_per_caller = 100});
  absl::Notification has_run;
  std::atomic<bool> is_over{false};
  // There is always a next one waiting.
  std::function<void()> again = [&] {
    for (int i = 0; i < 2 && !is_over; ++i) {
      Executor::Task task = [&] { again(); };
      (void)executor.TryPost("busy", task);
    }
  };
  executor.Repeat(absl::Microseconds(1), [&] {
    if (!is_over.exchange(true)) has_run.Notify();
  });
  executor.Post([&] { again(); });
  EXPECT_TRUE(has_run.WaitForNotificationWithTimeout(absl::Seconds(60)));
  is_over = true;
  executor.Stop();
}

TEST(ExecutorTest, RepeatedTaskRunsBetweenOthersAndNeverTwiceAtOnce) {
  Executor executor("repeat", 3);
  absl::Notification enough;
  int runs = 0;
  std::atomic<int> at_once{0};
  executor.Repeat(absl::Microseconds(1), [&] {
    EXPECT_EQ(++at_once, 1);
    if (++runs == 100) enough.Notify();
    --at_once;
  });
  enough.WaitForNotification();
  absl::Notification other;
  executor.Post([&other] { other.Notify(); });
  other.WaitForNotification();
  executor.Stop();
  EXPECT_GE(runs, 100);
}

}  // namespace
}  // namespace kino::frontend
