// The attempts this worker holds: those it runs or is about to, and ended ones whose last event the
// frontend has not acknowledged. The link and the engine thread meet here, and nowhere else.
// Thread-safe. Attempts are shared: a dropped one lives on until the engine thread lets go of it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/core/cancel.h"
#include "kino/v1/worker.pb.h"
#include "server/worker/pulse.h"
#include "server/worker/spool.h"

namespace kino::worker {

// Why a run was told to stop; the highest that was given counts.
enum class StopReason { kNone, kCancelled, kTimedOut, kSpoolLost, kInterrupted, kDropped };

// One attempt from its start command on.
class HeldAttempt {
 public:
  HeldAttempt(v1::StartAttempt command, std::unique_ptr<Spool> spool)
      : command_(std::move(command)), spool_(std::move(spool)) {}

  const v1::StartAttempt& command() const { return command_; }
  const v1::AttemptRef& ref() const { return command_.ref(); }
  // Where its status is not OK the attempt cannot run, only tell that it failed.
  Spool& spool() { return *spool_; }
  const Spool& spool() const { return *spool_; }
  const engine::CancelToken& token() const { return token_; }

  void Stop(StopReason reason);
  StopReason stop_reason() const { return stop_reason_.load(); }

  // It waits, is begun, and ends; or it ends while it still waits. Whoever brings it from one state
  // to the next writes its events in that state, so no two threads do.
  // The engine thread takes it up, and its run_timeout counts from `now` (monotonic). False: it has
  // ended.
  bool Begin(absl::Duration now);
  // Ends it if it still waits. The caller that is told true appends its last event.
  bool EndWaiting();
  // The last event (done or failed) comes next: the attempt no longer occupies the worker.
  void MarkEnded();
  bool ended() const;

  // Its run_timeout has passed; never before it has begun.
  bool is_overdue(absl::Duration now) const;

  Pulse& pulse() { return pulse_; }

  // Latest-only.
  void SetProgress(v1::Progress progress);
  std::optional<v1::Progress> TakeProgress();

 private:
  const v1::StartAttempt command_;
  const std::unique_ptr<Spool> spool_;
  engine::CancelToken token_;
  std::atomic<StopReason> stop_reason_{StopReason::kNone};
  Pulse pulse_;
  mutable absl::Mutex mutex_;
  enum class State { kWaiting, kBegun, kEnded } state_ ABSL_GUARDED_BY(mutex_) = State::kWaiting;
  absl::Duration begun_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteDuration();
  std::optional<v1::Progress> progress_ ABSL_GUARDED_BY(mutex_);
};

class HeldAttempts {
 public:
  // Spools are files in `spool_folder`, which exists and is this worker's alone. `files` outlives
  // this.
  HeldAttempts(scheduler::FileLayer& files, std::string spool_folder)
      : files_(files), spool_folder_(std::move(spool_folder)) {}

  // ALREADY_EXISTS: this very attempt is held. Where its spool's file cannot be made it is held all
  // the same, and its spool's status says so.
  absl::StatusOr<std::shared_ptr<HeldAttempt>> Add(v1::StartAttempt command);
  // Null unless job, attempt and token match.
  std::shared_ptr<HeldAttempt> Find(const v1::AttemptRef& ref) const;
  // Attempts that have not ended.
  int active() const;
  bool empty() const;
  std::vector<v1::AttemptRef> refs() const;

  // Of every attempt that has not ended.
  std::vector<v1::AttemptPulse> Pulses() const;
  // Of all spools together: Spool::bytes.
  int64_t SpoolBytes() const;

  // Tells it to stop. One that still waits ends here and now, without the engine thread, which may
  // be busy for long. No effect when it is not held. Call the link's Notify afterwards.
  void Stop(const v1::AttemptRef& ref, StopReason reason);
  // Stops it and sends nothing more of it. No effect when it is not held.
  void Drop(const v1::AttemptRef& ref);
  // As Stop or, for kDropped, Drop.
  void StopAll(StopReason reason);
  // Stops each attempt whose run_timeout has passed and that nobody has stopped. now: monotonic.
  void StopOverdue(absl::Duration now);

  // Forgets what is acknowledged, and the attempt itself when that was its last event.
  void Acknowledge(const v1::AttemptAck& ack);
  // After a new hello: what the frontend did not name is dropped, the others are sent again from
  // its acknowledgement.
  void Resume(const google::protobuf::RepeatedPtrField<v1::AttemptAck>& resumed);

  // The next event to send: unsent numbered ones in order, else fresh progress, else nothing. For
  // the link's writer; what it returns counts as sent until the next Resume. An attempt whose spool
  // cannot be read back is stopped, and fails.
  std::optional<v1::AttemptEvent> NextToSend();

 private:
  struct Slot {
    std::shared_ptr<HeldAttempt> attempt;
    int64_t sent = 0;
  };
  void RemoveLocked(const v1::AttemptRef& ref) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<Slot> Slots() const;
  // The next unsent numbered event.
  static std::optional<v1::AttemptEvent> NextOf(const Slot& slot);

  scheduler::FileLayer& files_;
  const std::string spool_folder_;
  mutable absl::Mutex mutex_;
  std::vector<Slot> slots_ ABSL_GUARDED_BY(mutex_);
  int64_t spools_made_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace kino::worker
