// Looks for damage in the whole file (PRAGMA quick_check) while the store serves: on a thread and a
// read-only connection of its own, in one snapshot.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/synchronization/notification.h"
#include "scheduler/store/sqlite/database.h"

namespace kino::scheduler {

class FileCheck {
 public:
  // `tell` gets OK, DATA_LOSS (STORE_DAMAGED) with what was found, or why the check could not be
  // made; on the check's thread, once, and not at all where the check was broken off.
  FileCheck(std::unique_ptr<Connection> db, std::function<void(const absl::Status&)> tell);
  FileCheck(const FileCheck&) = delete;
  FileCheck& operator=(const FileCheck&) = delete;
  // Breaks the check off where it still runs.
  ~FileCheck();

 private:
  absl::Status Look();

  const std::unique_ptr<Connection> db_;
  std::atomic<bool> is_stopping_ = false;
  absl::Notification finished_;
  std::thread thread_;  // last: starts when all else is there
};

}  // namespace kino::scheduler
