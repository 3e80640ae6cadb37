// The numbered events of one attempt that the frontend has not acknowledged yet. Chunk bytes lie in
// a file (at their offset in the artifact), everything else in memory, so a disk that is full, or
// that takes no file at all, can still be reported. Threads: Append from one thread at a time; the
// rest from any. The file is removed with the Spool.
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

namespace kino::worker {

// The disk has no room, or what this process or user may take of it is used up (ENOSPC, EDQUOT,
// EFBIG): nobody's fault, and it may pass.
bool IsDiskFull(const absl::Status& error);

class Spool {
 public:
  // IsDiskFull, or what the system says of the file.
  static absl::StatusOr<std::unique_ptr<Spool>> Create(const std::string& path);
  // Takes every event but chunks.
  static std::unique_ptr<Spool> WithoutFile();
  ~Spool();
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  // Gives `event` the next number and keeps it. A chunk must start where the last one ended. On an
  // error (IsDiskFull among them) the event is not kept and uses no number.
  absl::Status Append(v1::AttemptEvent event);

  // The first kept event whose number is above `after`; nothing when there is none yet.
  absl::StatusOr<std::optional<v1::AttemptEvent>> Next(int64_t after) const;

  // Forgets every event up to `number` and gives its disk space back.
  void Acknowledge(int64_t number);

  int64_t last_number() const;
  // Its last event (done or failed) is among those acknowledged.
  bool is_drained() const;

 private:
  struct Entry {
    v1::AttemptEvent event;  // a chunk's without its data
    int64_t offset = 0;
    int64_t size = 0;  // of the chunk; 0 for other events
  };

  Spool(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

  const std::string path_;
  const int fd_;  // -1: none
  mutable absl::Mutex mutex_;
  std::deque<Entry> entries_ ABSL_GUARDED_BY(mutex_);
  int64_t last_number_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t acknowledged_ ABSL_GUARDED_BY(mutex_) = 0;
  bool has_last_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t end_offset_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace kino::worker
