// How much of the disk the server and each tenant may take: videos of jobs, assets, and the
// uploads that are under way. One answer for all who ask: submissions and uploads are refused, and
// claims held, before the disk is full. Thread-safe. What cannot be looked at is no reason to
// refuse.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "scheduler/store/job_store.h"
#include "server/config/config.h"
#include "server/frontend/artifacts/file_store.h"

namespace kino::frontend {

// The reason of a refusal, beside scheduler::kReasonDiskFull.
inline constexpr char kReasonTenantDiskFull[] = "TENANT_DISK_FULL";

class DiskBudget {
 public:
  // All outlive the budget.
  DiskBudget(scheduler::JobStore& store, const FileStore& files, const config::LimitsConfig& limits)
      : store_(store), files_(files), limits_(limits) {}

  // Bytes that count as taken until this is gone. The budget outlives it.
  using Reservation = std::shared_ptr<void>;

  // Whether the tenant may have another file. RESOURCE_EXHAUSTED (DISK_FULL, TENANT_DISK_FULL).
  absl::Status Check(const std::string& tenant) const;
  // The same for one of `bytes` bytes, which count from now on.
  absl::StatusOr<Reservation> Reserve(const std::string& tenant, int64_t bytes);

  struct Shortage {
    std::string disk;               // why nobody's jobs may start; empty: they may
    std::set<std::string> tenants;  // whose jobs may not start
  };
  Shortage Find() const;

  struct Use {
    int64_t free_bytes = 0;  // of the data folder's disk
    int64_t used_bytes = 0;  // by videos and uploads, all tenants' together
  };
  // Errors are the disk's and the store's.
  absl::StatusOr<Use> Measure() const;

 private:
  absl::Status CheckFor(const std::string& tenant, int64_t bytes) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of each tenant, with what is reserved; empty where nothing limits it.
  std::map<std::string, int64_t> Taken() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Why the whole disk is short, where `taken` and `bytes` more are to be on it; or OK.
  absl::Status CheckDisk(const std::map<std::string, int64_t>& taken, int64_t bytes) const;
  absl::Status CheckTenant(const std::map<std::string, int64_t>& taken, const std::string& tenant,
                           int64_t bytes) const;
  void Release(const std::string& tenant, int64_t bytes);

  scheduler::JobStore& store_;
  const FileStore& files_;
  const config::LimitsConfig limits_;
  // Held while what is taken is read and reserved, so that two uploads do not share the last room.
  mutable absl::Mutex mutex_;
  std::map<std::string, int64_t> reserved_ ABSL_GUARDED_BY(mutex_);  // by tenant
};

}  // namespace kino::frontend
