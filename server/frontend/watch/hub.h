// What is known of a job right now and is not durable (bytes of the running attempt's file, latest
// progress), and who wants to be woken when it changes. Watchers pull: the hub keeps no queue, a
// watcher that is slow just sees a later view. Thread-safe. Watchers are called without the hub's
// lock, from the thread that brought the change; Wake must be quick.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "kino/v1/video.pb.h"
#include "server/frontend/watch/standing.h"

namespace kino::frontend {

class QueueSnapshot;

class Wakeable {
 public:
  virtual ~Wakeable() = default;
  virtual void Wake() = 0;
};

struct LiveView {
  // Of the last durable event the hub has heard of; 0: none.
  int64_t state_number = 0;
  // Of the running attempt's file.
  int attempt = 0;
  int64_t bytes = 0;
  // Latest progress, with a version that rises with each.
  std::shared_ptr<const v1::Progress> progress;
  int64_t progress_version = 0;
  // Where it stands in the queue; nothing while it is not known to be there.
  std::optional<Standing> standing;
  bool is_going_away = false;
};

class WatchHub {
 public:
  // The watcher is woken for every change of the job until it is unsubscribed or destroyed.
  void Subscribe(const std::string& job_id, const std::shared_ptr<Wakeable>& watcher);
  void Unsubscribe(const std::string& job_id, const Wakeable* watcher);
  int watchers() const;
  // Whether jobs are watched that have no attempt.
  bool HasWaiting() const;

  LiveView View(const std::string& job_id) const;

  void OnState(const std::string& job_id, int64_t state_number);
  void OnBytes(const std::string& job_id, int attempt, int64_t bytes);
  void OnProgress(const std::string& job_id, v1::Progress progress);
  // The attempt has ended: its bytes and progress are no longer looked up here.
  void OnAttemptEnded(const std::string& job_id, int attempt);
  // The queue as it is now: wakes the watchers of jobs that stand elsewhere than before.
  void OnQueue(std::shared_ptr<const QueueSnapshot> queue);
  // The server stops: every watcher is woken to end itself.
  void GoAway();
  bool is_going_away() const;

 private:
  struct Entry {
    LiveView live;
    std::vector<std::weak_ptr<Wakeable>> watchers;
    std::optional<Standing> told;  // when its watchers were last woken for it
    bool has_attempt = false;
  };
  using Wakeables = std::vector<std::shared_ptr<Wakeable>>;
  void Collect(Entry& entry, Wakeables& out) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropIfUnused(const std::string& job_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, Entry> jobs_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const QueueSnapshot> queue_ ABSL_GUARDED_BY(mutex_);  // null before the first
  bool is_going_away_ ABSL_GUARDED_BY(mutex_) = false;
  int watchers_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace kino::frontend
