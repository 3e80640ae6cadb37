// An advisory lock on a file, held until this is destroyed or the process ends, however it ends.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace kino::scheduler {

class FolderLock {
 public:
  // Creates `path` (mode 0600) if needed and writes the process id into it. FAILED_PRECONDITION
  // (STORE_LOCKED) when it is locked already, be it by this process. NOT_FOUND, PERMISSION_DENIED,
  // RESOURCE_EXHAUSTED, UNAVAILABLE by errno.
  static absl::StatusOr<std::unique_ptr<FolderLock>> Acquire(const std::string& path);
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  ~FolderLock();

 private:
  explicit FolderLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace kino::scheduler
