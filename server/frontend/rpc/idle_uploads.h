// Ends uploads whose client has fallen silent, so that they keep neither a place nor a file. Only
// the time in which an upload waits for its client counts, and only as far as this process ran:
// what a client sent while the server stood still lies unread in a socket. Thread-safe.
#pragma once

#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "scheduler/clock.h"

namespace kino::frontend {

// When an upload last heard of its client. Its owner's lock guards it.
class Silence {
 public:
  void Begin(absl::Duration now) { since_ = now; }
  void End() { since_ = absl::InfiniteDuration(); }
  bool IsLongerThan(absl::Duration limit, absl::Duration now) const {
    return since_ != absl::InfiniteDuration() && now - since_ > limit;
  }

 private:
  absl::Duration since_ = absl::InfiniteDuration();
};

class SilentParty {
 public:
  virtual ~SilentParty() = default;
  // Ends itself if it has waited for longer than `limit`. now: IdleUploads::Now.
  virtual void EndIfSilent(absl::Duration limit, absl::Duration now) = 0;
};

class IdleUploads {
 public:
  // `clock` outlives this.
  IdleUploads(const scheduler::Clock& clock, absl::Duration limit)
      : clock_(clock), limit_(limit), last_look_(clock.Monotonic()) {}

  // Looks at it from now on, for as long as it lives.
  void Add(const std::shared_ptr<SilentParty>& party);
  // A clock that stands while this process stands.
  absl::Duration Now() const;
  // To be called every LookInterval. Each party is called without the lock.
  void Look();

  // Four looks in the limit, so that silence is ended before a quarter more of it has passed.
  absl::Duration LookInterval() const;

 private:
  const scheduler::Clock& clock_;
  const absl::Duration limit_;
  mutable absl::Mutex mutex_;
  std::vector<std::weak_ptr<SilentParty>> parties_ ABSL_GUARDED_BY(mutex_);
  absl::Duration last_look_ ABSL_GUARDED_BY(mutex_);
  absl::Duration stood_still_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kino::frontend
