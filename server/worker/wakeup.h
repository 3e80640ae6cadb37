// One thread's sleep that others may end, timed by the monotonic clock. absl::CondVar is not used
// where there is a timeout: it turns it into a wall time, so that a clock that is set back by an
// hour makes the thread sleep an hour longer. Signal is thread-safe; one thread sleeps.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "absl/time/time.h"

namespace kino::worker {

class Wakeup {
 public:
  // Ends the sleep under way; without one, the next ends at once.
  void Signal() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      signalled_ = true;
    }
    changed_.notify_all();
  }
  // Until somebody signals or the time is over; may end earlier, never much later.
  void Sleep(absl::Duration timeout) {
    const absl::Duration bounded = std::clamp(timeout, absl::ZeroDuration(), absl::Hours(1));
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, absl::ToChronoNanoseconds(bounded), [this] { return signalled_; });
    signalled_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool signalled_ = false;  // guarded by mutex_
};

}  // namespace kino::worker
