// A flag one thread sets and another reads between steps, blocks, tiles and chunks.
#pragma once

#include <atomic>

#include "absl/status/status.h"

namespace kino::engine {

// Thread-safe. The owner outlives whoever reads it.
class CancelToken {
 public:
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }
  // CANCELLED once Cancel() was called, else OK.
  absl::Status Check() const {
    return cancelled() ? absl::CancelledError("the run was cancelled") : absl::OkStatus();
  }

 private:
  std::atomic<bool> cancelled_{false};
};

}  // namespace kino::engine
