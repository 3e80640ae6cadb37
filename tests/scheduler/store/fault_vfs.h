// A SQLite VFS that hands everything to the default one and fails writes on demand: the N-th write,
// truncation or sync from now on gives the chosen error, once or until healed. One per process;
// thread-safe.
#pragma once

#include <string>

namespace kino::scheduler {

// Registers the VFS on first use and gives its name.
std::string FaultVfs();

enum class Fault { kNone, kDiskFull, kWriteError, kSyncError };
const char* FaultName(Fault fault);

// `count` operations pass, then `fault` strikes: once, or until HealFaults when `is_lasting`.
// kSyncError counts and fails syncs, the others writes and truncations.
struct FaultPlan {
  Fault fault = Fault::kNone;
  int count = 0;
  bool is_lasting = false;
};
void PlanFault(const FaultPlan& plan);
void HealFaults();
// How often a fault struck since PlanFault.
int FaultsStruck();

}  // namespace kino::scheduler
