// An advisory lock on a file, held until this is destroyed or the process ends, however it ends.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "scheduler/files/file_layer.h"

namespace kino::scheduler {

class FileLock {
 public:
  // Creates `path` (mode 0600) if needed and writes the process id into it. FAILED_PRECONDITION
  // (STORE_LOCKED) when it is locked already, be it by this process. NOT_FOUND, PERMISSION_DENIED,
  // RESOURCE_EXHAUSTED, UNAVAILABLE by errno. `files` outlives the lock.
  static absl::StatusOr<std::unique_ptr<FileLock>> Acquire(FileLayer& files,
                                                           const std::string& path);
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  explicit FileLock(std::unique_ptr<File> file) : file_(std::move(file)) {}
  const std::unique_ptr<File> file_;
};

}  // namespace kino::scheduler
