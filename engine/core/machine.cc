#include "engine/core/machine.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace kino::engine {
namespace {

// The first line; empty where there is none.
std::string FirstLine(const std::string& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

std::optional<int64_t> Positive(absl::string_view text) {
  int64_t value = 0;
  if (!absl::SimpleAtoi(text, &value) || value <= 0) return std::nullopt;
  return value;
}

std::optional<int64_t> Least(std::optional<int64_t> a, std::optional<int64_t> b) {
  if (!a || !b) return a ? a : b;
  return std::min(*a, *b);
}

// A group's folder and those above it, up to where the hierarchy is mounted. In a container the
// path may be the host's: then only the mount itself exists here.
std::vector<std::string> FoldersOf(const std::string& mount, absl::string_view path) {
  std::vector<std::string> names = absl::StrSplit(path, '/', absl::SkipEmpty());
  // A group outside of this process's cgroup namespace; of it nothing but the mount exists here.
  if (!names.empty() && names.front() == "..") names.clear();
  std::vector<std::string> folders;
  for (;; names.pop_back()) {
    folders.push_back(absl::StrCat(mount, "/", absl::StrJoin(names, "/")));
    if (names.empty()) return folders;
  }
}

struct GroupFolder {
  std::string path;
  bool is_v2;
};

// Every folder whose limits hold for `controller` in this process.
std::vector<GroupFolder> GroupFolders(const MachineFiles& files, absl::string_view controller) {
  std::vector<GroupFolder> result;
  const std::string root = files.sys + "/fs/cgroup";
  std::ifstream groups(files.proc + "/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    // "0::/path" of version 2, or "5:cpu,cpuacct:/path".
    const std::vector<std::string> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    const std::vector<std::string> controllers = absl::StrSplit(fields[1], ',');
    const bool is_v2 = fields[0] == "0" && fields[1].empty();
    std::vector<std::string> mounts;
    if (is_v2) {
      // Beside version 1 it is mounted one folder down.
      mounts = {root, root + "/unified"};
    } else if (std::find(controllers.begin(), controllers.end(), controller) != controllers.end()) {
      mounts = {absl::StrCat(root, "/", fields[1])};
      if (controllers.size() > 1) mounts.push_back(absl::StrCat(root, "/", controller));
    }
    for (const std::string& mount : mounts) {
      for (std::string& folder : FoldersOf(mount, fields[2])) {
        result.push_back({.path = std::move(folder), .is_v2 = is_v2});
      }
    }
  }
  return result;
}

std::optional<int64_t> CoresOf(const GroupFolder& group) {
  std::optional<int64_t> quota, period;
  if (group.is_v2) {
    // "max 100000", or a quota before the period.
    const std::string line = FirstLine(group.path + "/cpu.max");
    const std::vector<std::string> fields = absl::StrSplit(line, ' ', absl::SkipEmpty());
    if (fields.size() != 2) return std::nullopt;
    quota = Positive(fields[0]);
    period = Positive(fields[1]);
  } else {
    quota = Positive(FirstLine(group.path + "/cpu.cfs_quota_us"));  // -1: no limit
    period = Positive(FirstLine(group.path + "/cpu.cfs_period_us"));
  }
  if (!quota || !period) return std::nullopt;
  return *quota / *period + (*quota % *period != 0 ? 1 : 0);
}

std::optional<int64_t> MemoryOf(const GroupFolder& group) {
  // Version 2 says "max" where there is no limit.
  if (group.is_v2) return Positive(FirstLine(group.path + "/memory.max"));
  // Version 1 says the highest multiple of its page size, which differs between machines.
  const std::optional<int64_t> limit = Positive(FirstLine(group.path + "/memory.limit_in_bytes"));
  constexpr int64_t kLargestPage = int64_t{1} << 20;
  if (limit && *limit > std::numeric_limits<int64_t>::max() - kLargestPage) return std::nullopt;
  return limit;
}

// The CPUs that the calling thread may run on; empty where the system does not say.
std::vector<int> AllowedCpus() {
  std::vector<int> cpus;
  // The kernel refuses a set that is smaller than its own.
  for (int capacity = 1024; capacity <= 1 << 20; capacity *= 2) {
    cpu_set_t* const set = CPU_ALLOC(capacity);
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(capacity);
    const bool is_known = sched_getaffinity(0, bytes, set) == 0;
    for (int cpu = 0; is_known && cpu < capacity; ++cpu) {
      if (CPU_ISSET_S(cpu, bytes, set)) cpus.push_back(cpu);
    }
    CPU_FREE(set);
    if (is_known) break;
  }
  return cpus;
}

int AllowedCores(const MachineFiles& files) {
  const std::vector<int> cpus = AllowedCpus();
  if (cpus.empty()) return std::max(1, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
  // Two threads of one core share its arithmetic: computing with both gains nothing. The list of a
  // core's threads is the same for each of them.
  std::set<std::string> cores;
  for (const int cpu : cpus) {
    const std::string siblings = FirstLine(
        absl::StrCat(files.sys, "/devices/system/cpu/cpu", cpu, "/topology/thread_siblings_list"));
    cores.insert(siblings.empty() ? absl::StrCat("cpu", cpu) : siblings);
  }
  return static_cast<int>(cores.size());
}

}  // namespace

int CgroupCores(const MachineFiles& files) {
  std::optional<int64_t> least;
  for (const GroupFolder& group : GroupFolders(files, "cpu")) least = Least(least, CoresOf(group));
  return static_cast<int>(std::min<int64_t>(least.value_or(0), std::numeric_limits<int>::max()));
}

int64_t CgroupMemoryBytes(const MachineFiles& files) {
  std::optional<int64_t> least;
  for (const GroupFolder& group : GroupFolders(files, "memory")) {
    least = Least(least, MemoryOf(group));
  }
  return least.value_or(0);
}

int UsableCores(const MachineFiles& files) {
  const int allowed = AllowedCores(files);
  const int limit = CgroupCores(files);
  return limit > 0 ? std::min(allowed, limit) : allowed;
}

int64_t UsableMemoryBytes(const MachineFiles& files) {
  const int64_t machine = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE);
  const int64_t limit = CgroupMemoryBytes(files);
  return limit > 0 ? std::min(machine, limit) : machine;
}

int DefaultThreads(int cores) {
  const char* const text = std::getenv("OMP_NUM_THREADS");
  if (text == nullptr) return cores;
  // One number for each level of nesting.
  const std::vector<std::string> levels = absl::StrSplit(text, ',');
  const std::optional<int64_t> threads = Positive(absl::StripAsciiWhitespace(levels.front()));
  constexpr int64_t kMaxThreads = 1024;
  return threads && *threads <= kMaxThreads ? static_cast<int>(*threads) : cores;
}

}  // namespace kino::engine
