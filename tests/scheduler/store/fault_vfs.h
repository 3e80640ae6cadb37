// One SimulatedDisk for the whole process, for tests that only want SQLite's writes to fail.
#pragma once

#include <string>

#include "tests/scheduler/files/simulated_disk.h"

namespace kino::scheduler {

inline SimulatedDisk& FaultDisk() {
  static SimulatedDisk* const disk = new SimulatedDisk;
  return *disk;
}

// The name of its VFS.
inline std::string FaultVfs() { return FaultDisk().Vfs(); }

enum class Fault { kNone, kDiskFull, kWriteError, kSyncError };
inline const char* FaultName(Fault fault) {
  switch (fault) {
    case Fault::kNone:
      return "None";
    case Fault::kDiskFull:
      return "DiskFull";
    case Fault::kWriteError:
      return "WriteError";
    case Fault::kSyncError:
      return "SyncError";
  }
  return "Unknown";
}

// `count` operations pass, then `fault` strikes: once, or until HealFaults when `is_lasting`.
// kSyncError counts and fails syncs, the others writes and truncations.
struct FaultPlan {
  Fault fault = Fault::kNone;
  int count = 0;
  bool is_lasting = false;
};
inline void PlanFault(const FaultPlan& plan) {
  const bool is_sync = plan.fault == Fault::kSyncError;
  FaultDisk().PlanFault({.calls = is_sync
                                      ? std::set<DiskCall>{DiskCall::kSync}
                                      : std::set<DiskCall>{DiskCall::kWrite, DiskCall::kTruncate},
                         .path_part = "",
                         .count = plan.count,
                         .error = plan.fault == Fault::kDiskFull ? ENOSPC : EIO,
                         .is_lasting = plan.is_lasting,
                         .bytes_written = 0});
}
inline void HealFaults() { FaultDisk().Heal(); }
// How often a fault struck since PlanFault.
inline int FaultsStruck() { return FaultDisk().faults_struck(); }

}  // namespace kino::scheduler
