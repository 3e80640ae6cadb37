// What a run hands down to every layer that can be interrupted or looked at: cancel flag, progress
// counter, tap. One thread; the counter is read by others. No torch.
#pragma once

#include <atomic>
#include <cstdint>

#include "engine/core/cancel.h"

namespace kino::engine {

struct RunContext {
  const CancelToken* cancel = nullptr;
  // Rises with every block, tile and chunk: a watchdog outside sees that the run lives.
  std::atomic<uint64_t>* counter = nullptr;
  // Tokens that a feed-forward layer of a transformer takes at a time; 0: all.
  int chunk_feed_forward = 0;

  // Counts one unit of work. CANCELLED when the run was cancelled.
  absl::Status Advance() const {
    if (counter != nullptr) counter->fetch_add(1, std::memory_order_relaxed);
    return cancel == nullptr ? absl::OkStatus() : cancel->Check();
  }
};

}  // namespace kino::engine
