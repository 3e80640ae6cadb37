// What a run, or a load, hands down to everything that can be interrupted or looked at: cancel flag
// and counter of work. One thread; the counter is read by others. No torch.
#pragma once

#include "absl/status/status.h"
#include "engine/core/cancel.h"
#include "engine/core/work_counter.h"

namespace kino::engine {

struct RunContext {
  const CancelToken* cancel = nullptr;
  // Of every block, tile and chunk, and of every weight that is brought: a watchdog outside sees
  // that the run lives.
  WorkCounter* counter = nullptr;
  // Tokens that a feed-forward layer of a transformer takes at a time; 0: all.
  int chunk_feed_forward = 0;

  // Counts one unit of work. CANCELLED when the run was cancelled.
  absl::Status Advance() const {
    if (counter != nullptr) counter->Count();
    return cancel == nullptr ? absl::OkStatus() : cancel->Check();
  }
};

}  // namespace kino::engine
