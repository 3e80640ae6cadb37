// What this process may use of its machine: the least of the machine's, the scheduler's and the
// cgroup's limits. Thread-safe; no torch.
#pragma once

#include <cstdint>
#include <string>

namespace kino::engine {

// Where the limits are read. Tests have their own.
struct MachineFiles {
  std::string cgroup_root = "/sys/fs/cgroup";
  std::string own_cgroup = "/proc/self/cgroup";
};

// Cores that threads of this process can keep busy at a time: of those it may run on, at most the
// cgroup's CPU quota, rounded up. At least 1.
int UsableCores(const MachineFiles& files = {});

// Bytes of memory: of the whole machine, at most the cgroup's limit.
int64_t UsableMemoryBytes(const MachineFiles& files = {});

}  // namespace kino::engine
