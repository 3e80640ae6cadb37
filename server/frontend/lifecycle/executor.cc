#include "server/frontend/lifecycle/executor.h"

#include <pthread.h>

#include <utility>

namespace kino::frontend {

Executor::Executor(const std::string& name, int threads) {
  for (int i = 0; i < threads; ++i) {
    threads_.emplace_back([this, name] {
      pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
      Loop();
    });
  }
}

Executor::~Executor() { Stop(); }

void Executor::Post(Task task) {
  absl::MutexLock lock(&mutex_);
  if (is_stopping_) return;
  tasks_.push_back(std::move(task));
}

void Executor::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    is_stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Executor::Loop() {
  for (;;) {
    Task task;
    {
      const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return is_stopping_ || !tasks_.empty();
      };
      absl::MutexLock lock(&mutex_, absl::Condition(&ready));
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
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
