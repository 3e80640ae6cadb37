// The numbered events of one attempt that the frontend has not acknowledged yet. Chunk bytes lie in
// a file (at their offset in the artifact), everything else in memory, so a disk that is full, that
// takes no file at all, or that gives nothing back can still be reported. Threads: Append from one
// thread at a time; the rest from any. The file is removed with the Spool; one that the disk would
// not remove goes at the worker's next start (PrepareSpoolFolder).
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "kino/v1/worker.pb.h"
#include "scheduler/files/file_layer.h"

namespace kino::worker {

// Of an errno that is IsOutOfSpace, or IsOutOfResources.
bool IsDiskFull(const absl::Status& error);
bool IsShortage(const absl::Status& error);

// Makes the folder of a worker's spools, and the one above it, where they are missing, and removes
// what an earlier process left in it. FAILED_PRECONDITION, naming the folder or file.
absl::Status PrepareSpoolFolder(scheduler::FileLayer& files, const std::string& folder);

class Spool {
 public:
  // Always gives a spool; where its file could not be made, status() says why. `path` is a new
  // file's. `files` outlives the spool.
  static std::unique_ptr<Spool> Create(scheduler::FileLayer& files, const std::string& path);
  ~Spool();
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  // Not OK: the file could not be made (IsDiskFull, IsShortage, or what the system says), or was
  // given up. From then on the attempt's end as failed is all that it takes.
  absl::Status status() const;

  // Gives `event` the next number and keeps it. A chunk must start where the last one ended. On an
  // error (IsDiskFull among them) the event is not kept and uses no number.
  absl::Status Append(v1::AttemptEvent event);

  // The first kept event whose number is above `after`; nothing when there is none yet. An error:
  // its bytes cannot be read back.
  absl::StatusOr<std::optional<v1::AttemptEvent>> Next(int64_t after) const;

  // Forgets every event whose number is above `after`, the next one's bytes being lost; status() is
  // `error` from now on. True: the last event was among them, and the caller appends another.
  // False: it is still to come. REQUIRES: the peer has none of them.
  bool GiveUp(int64_t after, const absl::Status& error);

  // Forgets every event up to `number` and gives its disk space back.
  void Acknowledge(int64_t number);

  // Of the chunks it keeps.
  int64_t bytes() const;
  int64_t last_number() const;
  // Its last event (done or failed) is among those acknowledged.
  bool is_drained() const;

 private:
  struct Entry {
    v1::AttemptEvent event;  // a chunk's without its data
    int64_t offset = 0;
    int64_t size = 0;  // of the chunk; 0 for other events
  };

  Spool(scheduler::FileLayer& files, std::string path) : files_(files), path_(std::move(path)) {}

  scheduler::FileLayer& files_;
  const std::string path_;
  std::unique_ptr<scheduler::File> file_;  // null: none. Set once, by Create
  mutable absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::deque<Entry> entries_ ABSL_GUARDED_BY(mutex_);
  int64_t last_number_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t acknowledged_ ABSL_GUARDED_BY(mutex_) = 0;
  bool has_last_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t end_offset_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace kino::worker
