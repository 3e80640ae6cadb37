#include "server/frontend/artifacts/disk_budget.h"

#include "absl/strings/str_cat.h"
#include "scheduler/status.h"

namespace kino::frontend {

std::map<std::string, int64_t> DiskBudget::Taken() const {
  if (limits_.max_disk_bytes == 0 && limits_.max_tenant_disk_bytes == 0) return {};
  absl::StatusOr<std::map<std::string, int64_t>> taken = store_.DiskUse();
  if (!taken.ok()) return {};
  for (const auto& [tenant, bytes] : reserved_) (*taken)[tenant] += bytes;
  return *std::move(taken);
}

absl::Status DiskBudget::CheckDisk(const std::map<std::string, int64_t>& taken,
                                   int64_t bytes) const {
  std::string words;
  const absl::StatusOr<int64_t> free_bytes = files_.FreeBytes();
  if (free_bytes.ok() && *free_bytes < limits_.min_free_disk_bytes) {
    words = absl::StrCat(*free_bytes, " bytes are free, expected at least ",
                         limits_.min_free_disk_bytes);
  }
  int64_t all = 0;
  for (const auto& [tenant, each] : taken) all += each;
  if (limits_.max_disk_bytes > 0 && bytes > limits_.max_disk_bytes - all) {
    words = absl::StrCat("its videos and uploads take ", all, " bytes of the ",
                         limits_.max_disk_bytes, " of limits.max_disk, ", bytes, " more asked for");
  }
  if (words.empty()) return absl::OkStatus();
  return scheduler::WithReason(
      absl::ResourceExhaustedError(absl::StrCat("the server's disk is full: ", words)),
      scheduler::kReasonDiskFull);
}

absl::Status DiskBudget::CheckTenant(const std::map<std::string, int64_t>& taken,
                                     const std::string& tenant, int64_t bytes) const {
  const int64_t limit = limits_.max_tenant_disk_bytes;
  const auto found = taken.find(tenant);
  const int64_t own = found == taken.end() ? 0 : found->second;
  if (limit == 0 || bytes <= limit - own) return absl::OkStatus();
  return scheduler::WithReason(
      absl::ResourceExhaustedError(absl::StrCat(
          "tenant '", tenant, "' has no more room: its videos and uploads take ", own,
          " bytes of the ", limit, " that a tenant may have, ", bytes,
          " more asked for; delete jobs that are no longer needed, or wait until they expire")),
      kReasonTenantDiskFull);
}

absl::Status DiskBudget::CheckFor(const std::string& tenant, int64_t bytes) const {
  const std::map<std::string, int64_t> taken = Taken();
  const absl::Status disk = CheckDisk(taken, bytes);
  return disk.ok() ? CheckTenant(taken, tenant, bytes) : disk;
}

absl::Status DiskBudget::Check(const std::string& tenant) const {
  absl::MutexLock lock(&mutex_);
  return CheckFor(tenant, 1);
}

absl::StatusOr<DiskBudget::Reservation> DiskBudget::Reserve(const std::string& tenant,
                                                            int64_t bytes) {
  {
    absl::MutexLock lock(&mutex_);
    const absl::Status status = CheckFor(tenant, bytes);
    if (!status.ok()) return status;
    reserved_[tenant] += bytes;
  }
  // Any address but null: what counts is the deleter.
  return Reservation(static_cast<void*>(this),
                     [this, tenant, bytes](void*) { Release(tenant, bytes); });
}

DiskBudget::Shortage DiskBudget::Find() const {
  absl::MutexLock lock(&mutex_);
  const std::map<std::string, int64_t> taken = Taken();
  Shortage shortage{.disk = std::string(CheckDisk(taken, 1).message()), .tenants = {}};
  for (const auto& [tenant, bytes] : taken) {
    if (!CheckTenant(taken, tenant, 1).ok()) shortage.tenants.insert(tenant);
  }
  return shortage;
}

absl::StatusOr<DiskBudget::Use> DiskBudget::Measure() const {
  const absl::StatusOr<int64_t> free_bytes = files_.FreeBytes();
  if (!free_bytes.ok()) return free_bytes.status();
  const absl::StatusOr<std::map<std::string, int64_t>> taken = store_.DiskUse();
  if (!taken.ok()) return taken.status();
  Use use{.free_bytes = *free_bytes};
  for (const auto& [tenant, bytes] : *taken) use.used_bytes += bytes;
  return use;
}

void DiskBudget::Release(const std::string& tenant, int64_t bytes) {
  absl::MutexLock lock(&mutex_);
  const auto found = reserved_.find(tenant);
  if ((found->second -= bytes) == 0) reserved_.erase(found);
}

}  // namespace kino::frontend
