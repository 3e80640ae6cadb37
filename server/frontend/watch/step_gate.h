// Keeps a stream's steps from overlapping, and its wake-ups from being lost. A step looks for what
// to send; where it finds nothing the stream rests until something wakes it. What wakes it between
// the look and the rest makes it look again. Thread-safe.
#pragma once

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace kino::frontend {

enum class Look {
  kNothing,  // rest until woken
  kBusy      // a write is out, or the stream has ended: whoever goes on calls Run
};

// Starts busy: the first step is called by whoever makes the stream.
class StepGate {
 public:
  // True: the stream rested, and the caller is to have a step run. False: one that is under way, or
  // that comes after what is under way, sees what happened.
  bool Wake() {
    absl::MutexLock lock(&mutex_);
    is_woken_ = true;
    return !std::exchange(is_busy_, true);
  }

  // Calls `look` until it is busy or finds nothing though nothing woke the stream meanwhile.
  // REQUIRES: the gate is busy, and no other Run is under way.
  template <typename LookForWork>
  void Run(LookForWork look) {
    do {
      {
        absl::MutexLock lock(&mutex_);
        is_woken_ = false;
      }
      // A stream that is busy may be gone by the time `look` returns.
      if (look() == Look::kBusy) return;
    } while (!Rest());
  }

 private:
  bool Rest() {
    absl::MutexLock lock(&mutex_);
    if (is_woken_) return false;
    is_busy_ = false;
    return true;
  }

  absl::Mutex mutex_;
  bool is_busy_ ABSL_GUARDED_BY(mutex_) = true;
  bool is_woken_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace kino::frontend
