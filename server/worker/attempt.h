// One attempt from start to its last event: load the model, decode the conditions, drive the
// engine's run, put what comes of it into the attempt's spool. Runs on the engine thread; what it
// tells the outside goes through HeldAttempt and RunMonitor, which are thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"
#include "kino/v1/worker.pb.h"
#include "server/worker/held_attempts.h"
#include "server/worker/models.h"

namespace kino::worker {

// Decodes the file of one condition. INVALID_ARGUMENT: it is none that can be decoded.
using MediaDecoder = std::function<absl::StatusOr<engine::MediaInput>(const std::string& path,
                                                                      engine::ConditionKind kind)>;

// What heartbeats tell of the engine thread. Thread-safe.
class RunMonitor {
 public:
  // Rises with every step, block, tile and chunk of every run.
  int64_t progress_counter() const;
  int64_t device_memory_used_bytes() const { return memory_used_.load(); }

  void SetMemoryUsed(int64_t bytes) { memory_used_.store(bytes); }
  // Work outside a run (a model loaded, a condition decoded).
  void Count() { counted_.fetch_add(1); }
  // Between the two the run must live.
  void RunBegins(const engine::Run* run);
  void RunEnds();

 private:
  std::atomic<int64_t> memory_used_{0};
  std::atomic<int64_t> counted_{0};
  mutable absl::Mutex mutex_;
  const engine::Run* run_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

struct AttemptContext {
  engine::Engine& engine;
  Models& models;
  const MediaDecoder& decode;
  RunMonitor& monitor;
  // Called after each change the link should send.
  std::function<void()> notify;
};

// Runs `attempt` and appends its events: started, chunks, then done or failed, whatever happens;
// nothing more once it is dropped. Returns when the engine's memory of the run is free again; the
// attempt counts as ended just before its last event can be sent.
void RunAttempt(const AttemptContext& context, HeldAttempt& attempt);

// Ends an attempt that was never begun.
void FailAttempt(HeldAttempt& attempt, v1::AttemptFailed::Cause cause, const absl::Status& error,
                 const std::vector<v1::StageStats>& stages);

}  // namespace kino::worker
