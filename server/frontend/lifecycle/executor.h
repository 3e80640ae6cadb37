// A few named threads that run posted tasks: where the frontend does what may block (the store,
// files), so that gRPC's callback threads never do. With one thread it is a strand: its tasks never
// overlap. Thread-safe. Owns and joins its threads.
//
// Tasks come in two kinds. The server's own (Post) are never refused: whoever posts them bounds
// them, as a stream does that has at most one step posted at a time. Those of callers (TryPost) are
// refused above a limit, for each caller and for all together, so that no flood of calls takes the
// memory or the time of others. Each caller has a line of its own and the lines take turns; the
// server's own tasks are a line, too. Within a line tasks start in order of arrival.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace kino::frontend {

// How many callers' tasks may wait; those that run do not count.
struct ExecutorLimits {
  size_t waiting = 1024;
  size_t waiting_per_caller = 512;
};

class Executor {
 public:
  using Task = absl::AnyInvocable<void()>;

  // `name` is the threads' name as the system shows it, at most 15 characters.
  Executor(const std::string& name, int threads, ExecutorLimits limits = {});
  // Stops.
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // A task of the server's own. After Stop it is destroyed unrun.
  void Post(Task task);
  // A task of `caller`. False, and `task` is as it was: too many wait, or the executor has stopped.
  bool TryPost(const std::string& caller, Task& task);
  // From now on a task of the server's own every `interval`, until Stop; where one is late the next
  // one is, too. REQUIRES: called once at most (a second call ends the process), and what `task`
  // uses lives until Stop.
  void Repeat(absl::Duration interval, std::function<void()> task);
  // Runs what was posted before, then joins the threads. Not to be called from a task.
  void Stop();

 private:
  // Tasks of one caller. It exists while it has any.
  struct Line {
    std::string caller;
    std::deque<Task> tasks;
  };
  using Lines = std::list<Line>;

  void Loop();
  // Waits for a task; false: the executor stops and there is none.
  bool AwaitTask() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunRepeated();
  Task TakeNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Append(const std::string& caller, Task task) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const ExecutorLimits limits_;
  absl::Mutex mutex_;
  Lines lines_ ABSL_GUARDED_BY(mutex_);  // the next one's turn first
  std::map<std::string, Lines::iterator> line_of_ ABSL_GUARDED_BY(mutex_);
  size_t callers_waiting_ ABSL_GUARDED_BY(mutex_) = 0;  // tasks of all callers
  std::function<void()> repeated_ ABSL_GUARDED_BY(mutex_);
  absl::Duration interval_ ABSL_GUARDED_BY(mutex_);
  // When it is posted again, by a clock that nobody sets; InfiniteDuration while it waits or runs.
  absl::Duration next_repeat_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteDuration();
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
