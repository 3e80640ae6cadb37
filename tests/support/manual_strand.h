// A strand whose thread is the test's: tasks wait in a list until the test runs them, one at a
// time, in the order it likes. Posting is thread-safe.
#pragma once

#include <cstddef>
#include <deque>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"

namespace kino::scheduler {

class ManualStrand {
 public:
  using Task = absl::AnyInvocable<void()>;

  // After End the task is dropped, as it is by a strand that has ended.
  void Post(Task task) {
    absl::MutexLock lock(&mutex_);
    if (!has_ended_) tasks_.push_back(std::move(task));
  }
  void End() {
    std::deque<Task> dropped;  // their captures die outside the lock
    absl::MutexLock lock(&mutex_);
    has_ended_ = true;
    dropped.swap(tasks_);
  }
  size_t waiting() const {
    absl::MutexLock lock(&mutex_);
    return tasks_.size();
  }
  // Runs the first task. False: there was none.
  bool RunOne() {
    Task task;
    {
      absl::MutexLock lock(&mutex_);
      if (tasks_.empty()) return false;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    std::move(task)();
    return true;
  }
  // Runs what waits and what that posts.
  void RunAll() {
    while (RunOne()) {
    }
  }

 private:
  mutable absl::Mutex mutex_;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  bool has_ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace kino::scheduler
