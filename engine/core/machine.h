// What this process may use of the machine: its CPU affinity and its control groups (version 1 and
// 2) count, not what the machine has. No torch. Thread-safe; reads files at each call. A file that
// is missing or cannot be understood limits nothing.
#pragma once

#include <cstdint>
#include <string>

namespace kino::engine {

// Where the system's files are; tests have their own.
struct MachineFiles {
  std::string proc = "/proc";
  std::string sys = "/sys";
};

// CPUs' worth of time that the process's control group and those above it leave it, rounded up;
// 0: no limit.
int CgroupCores(const MachineFiles& files = {});
// Bytes of memory that they leave it; 0: no limit.
int64_t CgroupMemoryBytes(const MachineFiles& files = {});

// Cores that the calling thread may run on, hardware threads of one core counting once, and at most
// CgroupCores(). At least 1.
int UsableCores(const MachineFiles& files = {});
// Bytes of the machine's memory, and at most CgroupMemoryBytes().
int64_t UsableMemoryBytes(const MachineFiles& files = {});

// Threads of a process that is to compute on `cores` cores: OMP_NUM_THREADS where it is set, or
// else `cores`.
int DefaultThreads(int cores);

}  // namespace kino::engine
