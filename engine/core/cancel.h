// A flag one thread sets and another reads between steps, blocks, tiles and chunks.
#pragma once

#include <atomic>
#include <cstdint>

#include "absl/status/status.h"

namespace kino::engine {

// Thread-safe. The owner outlives whoever reads it.
class CancelToken {
 public:
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  bool cancelled() const {
    if (looks_left_.load(std::memory_order_relaxed) > 0 && looks_left_.fetch_sub(1) == 1)
      cancelled_.store(true, std::memory_order_relaxed);
    return cancelled_.load(std::memory_order_relaxed);
  }
  // For tests, which so stop at every place that can be stopped: the n-th look from now on finds it
  // cancelled; 1 is the next. Before the token is shared.
  void CancelAtLook(int64_t n) { looks_left_.store(n); }
  // CANCELLED once Cancel() was called, else OK.
  absl::Status Check() const {
    return cancelled() ? absl::CancelledError("the run was cancelled") : absl::OkStatus();
  }

 private:
  mutable std::atomic<bool> cancelled_{false};
  mutable std::atomic<int64_t> looks_left_{0};
};

}  // namespace kino::engine
