// Opens the embedded job store: one SQLite file in WAL mode with synchronous=FULL, one writer
// thread with group commit.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "scheduler/clock.h"
#include "scheduler/files/file_layer.h"
#include "scheduler/random.h"
#include "scheduler/store/job_store.h"

namespace kino::scheduler {

struct SqliteOptions {
  std::string path{};   // of the database; its folder must exist. "<path>.lock" is locked while the
                        // store is open
  std::string vfs{};    // a registered SQLite VFS; empty: the default. Tests inject faults here
  int max_readers = 4;  // read-only connections, opened when first needed
  int max_batch = 256;  // operations in one transaction
  int max_pending = 10000;  // of clients, waiting; more are refused with UNAVAILABLE
  // Index entries that one List looks at before it gives what it has.
  int max_list_steps = 20000;
  FileLayer* files =
      nullptr;  // for what is not SQLite's; null: RealFiles(). Must outlive the store
};

// Creates the file or migrates an older one. `clock` and `random` must outlive the store.
//
// A store that is destroyed in peace marks its file as closed, durably; the next one's first write
// takes the mark away. A file without the mark is looked through for damage while the store serves
// (StoreOptions::checked).
//
// FAILED_PRECONDITION: another process has it open (STORE_LOCKED), or a newer Kino wrote it
// (STORE_TOO_NEW). DATA_LOSS (STORE_DAMAGED): it is not a database, or its root is damaged.
// PERMISSION_DENIED, NOT_FOUND, RESOURCE_EXHAUSTED, UNAVAILABLE: from the file system.
absl::StatusOr<std::unique_ptr<JobStore>> OpenSqliteJobStore(const SqliteOptions& sqlite,
                                                             const StoreOptions& options,
                                                             const Clock& clock,
                                                             RandomSource& random);

}  // namespace kino::scheduler
