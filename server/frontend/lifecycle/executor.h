// A few named threads that run posted tasks in order of arrival: where the frontend does what may
// block (the store, files), so that gRPC's callback threads never do. With one thread it is a
// strand: its tasks never overlap. Thread-safe. Owns and joins its threads. Bounded by its callers:
// each RPC and each worker's stream has at most one task posted at a time.
#pragma once

#include <deque>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace kino::frontend {

class Executor {
 public:
  using Task = absl::AnyInvocable<void()>;

  // `name` is the threads' name as the system shows it, at most 15 characters.
  Executor(const std::string& name, int threads);
  // Stops.
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // After Stop the task is destroyed unrun.
  void Post(Task task);
  // Runs what was posted before, then joins the threads. Not to be called from a task.
  void Stop();

 private:
  void Loop();

  absl::Mutex mutex_;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  bool is_stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

// One thread that calls `tick` every `interval` until it is destroyed. `tick` must be quick (post
// to an executor).
class Ticker {
 public:
  Ticker(absl::Duration interval, absl::AnyInvocable<void()> tick);
  ~Ticker();
  Ticker(const Ticker&) = delete;
  Ticker& operator=(const Ticker&) = delete;

 private:
  absl::Mutex mutex_;
  bool is_stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace kino::frontend
