// The SHA-256 of the weights of each model that is loaded, for the receipts of its jobs. Of each
// file what sha256sum prints, and of those lines, sorted by path, the SHA-256:
//   cd MODEL && sha256sum FILE... | LC_ALL=C sort -k 2 | sha256sum
// A path is relative to the model's folder; a file that lies elsewhere goes by its name alone.
//
// Files are read by a thread of the lowest priority, for processor and disk, so that a run does not
// wait for it; the pages of a model that has just been loaded are in memory. What was read is kept
// beside the file's identity (device, inode, size, times of change to the nanosecond), so a restart
// reads nothing again. A file that changes while it is read has no hash, and so the model has none.
// What is hashed is what lies at the path once the model is loaded. A file that is replaced later
// (renamed over) is not what the engine has mapped; one that is written in place is, and the hash
// says so only at the next load. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "scheduler/files/file_layer.h"

namespace kino::worker {

class WeightHashes {
 public:
  // What is known is kept in `cache_path`, whose folder is made where it is missing; empty:
  // nowhere. A cache that cannot be read or written costs time only. `files`, which it goes
  // through, outlives this.
  WeightHashes(scheduler::FileLayer& files, std::string cache_path);
  // Stops the reading.
  ~WeightHashes();
  WeightHashes(const WeightHashes&) = delete;
  WeightHashes& operator=(const WeightHashes&) = delete;

  // The model was loaded from these weight files: finds their hash. Returns at once.
  void Want(const std::string& model, std::string folder, std::vector<std::string> paths);
  // The model is not loaded any more. Returns at once; what is read for it ends soon.
  void Forget(const std::string& model);
  // Empty: not known yet, or there is none.
  std::string Known(const std::string& model) const;

  // Nothing is left to find. For tests, with Await.
  bool is_idle() const;
  // Bytes of weights that were read, since the start.
  int64_t bytes_read() const { return bytes_read_.load(); }

 private:
  // What a file of the same name and size would have to forge.
  using Identity = std::string;
  struct Wanted {
    int64_t number = 0;  // of the Want
    std::string model;
    std::string folder;
    std::vector<std::string> paths;
  };

  void Loop();
  // What is read for this model is wanted no more.
  void Withdraw(const std::string& model) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // CANCELLED: not wanted any more.
  absl::StatusOr<std::string> HashOf(const Wanted& wanted);
  absl::StatusOr<std::string> HashOfFile(const std::string& path, int64_t number);
  void ReadCache();
  void WriteCache();

  scheduler::FileLayer& files_;
  const std::string cache_path_;
  std::atomic<int64_t> bytes_read_{0};
  // The number of the Want whose files are read; 0: of none that is still wanted. Not under the
  // mutex: a thread of the lowest priority that loses the processor with it would keep others
  // waiting.
  std::atomic<int64_t> wanted_{0};
  std::map<Identity, std::string> cache_;  // the thread's

  mutable absl::Mutex mutex_;
  absl::CondVar changed_;
  bool is_stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_busy_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t wants_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<Wanted> queue_ ABSL_GUARDED_BY(mutex_);
  struct Answer {
    int64_t number = 0;
    std::string sha256{};
  };
  std::map<std::string, Answer> answers_ ABSL_GUARDED_BY(mutex_);  // of loaded models, by name
  std::thread thread_;
};

}  // namespace kino::worker
