#include "server/frontend/lifecycle/executor.h"

#include <pthread.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"

namespace kino::frontend {
namespace {

constexpr char kServer[] = "";
constexpr char kCallerPrefix[] = "/";

absl::Duration SteadyNow() {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace

Executor::Executor(const std::string& name, int threads, ExecutorLimits limits) : limits_(limits) {
  for (int i = 0; i < threads; ++i) {
    threads_.emplace_back([this, name] {
      pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
      Loop();
    });
  }
}

Executor::~Executor() { Stop(); }

void Executor::Append(const std::string& caller, Task task) {
  auto [line, is_new] = line_of_.try_emplace(caller, lines_.end());
  if (is_new) line->second = lines_.insert(lines_.end(), {.caller = caller, .tasks = {}});
  line->second->tasks.push_back(std::move(task));
}

void Executor::Post(Task task) {
  absl::MutexLock lock(&mutex_);
  if (is_stopping_) return;
  Append(kServer, std::move(task));
}

bool Executor::TryPost(const std::string& caller, Task& task) {
  // Callers' names are kept apart from the server's own line.
  const std::string name = absl::StrCat(kCallerPrefix, caller);
  absl::MutexLock lock(&mutex_);
  if (is_stopping_ || callers_waiting_ >= limits_.waiting) return false;
  const auto line = line_of_.find(name);
  if (line != line_of_.end() && line->second->tasks.size() >= limits_.waiting_per_caller) {
    return false;
  }
  Append(name, std::move(task));
  ++callers_waiting_;
  return true;
}

void Executor::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    is_stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

Executor::Task Executor::TakeNext() {
  const Lines::iterator line = lines_.begin();
  Task task = std::move(line->tasks.front());
  line->tasks.pop_front();
  if (line->caller != kServer) --callers_waiting_;
  if (line->tasks.empty()) {
    line_of_.erase(line->caller);
    lines_.erase(line);
  } else {
    lines_.splice(lines_.end(), lines_, line);
  }
  return task;
}

void Executor::Repeat(absl::Duration interval, std::function<void()> task) {
  absl::MutexLock lock(&mutex_);
  if (repeated_ != nullptr) {
    // The first one would end without a word.
    spdlog::critical("Executor::Repeat was called a second time");
    std::abort();
  }
  interval_ = interval;
  repeated_ = std::move(task);
  next_repeat_ = SteadyNow() + interval;
}

void Executor::RunRepeated() {
  std::function<void()> task;
  {
    absl::MutexLock lock(&mutex_);
    if (is_stopping_) return;
    task = repeated_;
  }
  task();
  absl::MutexLock lock(&mutex_);
  next_repeat_ = SteadyNow() + interval_;
}

bool Executor::AwaitTask() {
  while (!is_stopping_) {
    // Also while others wait: then it has its turn among them.
    if (next_repeat_ <= SteadyNow()) {
      next_repeat_ = absl::InfiniteDuration();
      Append(kServer, [this] { RunRepeated(); });
    }
    if (!lines_.empty()) break;
    const absl::Duration repeat = next_repeat_;
    const auto ready = [this, repeat]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return is_stopping_ || !lines_.empty() || next_repeat_ != repeat;
    };
    mutex_.AwaitWithTimeout(absl::Condition(&ready), repeat - SteadyNow());
  }
  return !lines_.empty();
}

void Executor::Loop() {
  for (;;) {
    Task task;
    {
      absl::MutexLock lock(&mutex_);
      if (!AwaitTask()) return;
      task = TakeNext();
    }
    task();
  }
}

Ticker::Ticker(absl::Duration interval, absl::AnyInvocable<void()> tick) {
  thread_ = std::thread([this, interval, tick = std::move(tick)]() mutable {
    pthread_setname_np(pthread_self(), "ticker");
    for (;;) {
      {
        absl::MutexLock lock(&mutex_);
        if (mutex_.AwaitWithTimeout(absl::Condition(&is_stopping_), interval)) return;
      }
      tick();
    }
  });
}

Ticker::~Ticker() {
  {
    absl::MutexLock lock(&mutex_);
    is_stopping_ = true;
  }
  thread_.join();
}

}  // namespace kino::frontend
