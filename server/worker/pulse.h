// How far one piece of the engine thread's work is: an attempt, or a command about a model. Told by
// the engine thread, read by heartbeats. Thread-safe.
#pragma once

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"
#include "kino/v1/worker.pb.h"

namespace kino::worker {

class Pulse {
 public:
  // A stage outside of a run: LOAD, ENCODE_MEDIA.
  void Enter(v1::Stage stage);
  // What is done outside of a run, such as a weight that is loaded.
  engine::WorkCounter& work() { return work_; }
  // Between the two the run must live, and its own pulse is this one's.
  void RunBegins(const engine::Run* run);
  void RunEnds();

  // Rises with everything that is done, over all stages; never falls.
  int64_t counter() const;
  // All but the reference. STAGE_UNSPECIFIED before the first stage.
  v1::AttemptPulse Read() const;

 private:
  engine::HostWorkCounter work_;
  mutable absl::Mutex mutex_;
  const engine::Run* run_ ABSL_GUARDED_BY(mutex_) = nullptr;
  // Of stages outside of the run, and of the run once it has ended.
  v1::AttemptPulse latest_ ABSL_GUARDED_BY(mutex_);
  int64_t counted_ ABSL_GUARDED_BY(mutex_) = 0;  // by the run that has ended
};

}  // namespace kino::worker
