#include "engine/core/machine.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace kino::engine {
namespace {

// The words of a file's first line; none where it cannot be read.
std::vector<std::string> Words(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!file || !std::getline(file, line)) return {};
  return absl::StrSplit(line, ' ', absl::SkipEmpty());
}

// A number above zero; "max", -1 and what is no number are no limit.
std::optional<int64_t> Limit(const std::vector<std::string>& words, size_t index) {
  int64_t value = 0;
  if (index >= words.size() || !absl::SimpleAtoi(words[index], &value) || value <= 0)
    return std::nullopt;
  return value;
}

// The process's cgroup for a controller ("cpu", "memory"): v2 has one for all, with no name.
std::string OwnGroup(const MachineFiles& files, std::string_view controller) {
  std::ifstream file(files.own_cgroup);
  std::string line, unified;
  while (std::getline(file, line)) {
    const std::vector<std::string> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    if (fields[1].empty()) unified = fields[2];
    const std::vector<std::string> names = absl::StrSplit(fields[1], ',');
    if (std::find(names.begin(), names.end(), controller) != names.end()) return fields[2];
  }
  return unified;
}

// Calls visit(folder) for the process's group and each one above it, up to the root. In a container
// the path may be the host's: folders that are not there have no files to read.
template <typename Visit>
void ForGroups(const std::string& root, std::string group, const Visit& visit) {
  while (!group.empty() && group != "/") {
    visit(root + group);
    group.resize(group.rfind('/'));
  }
  visit(root);
}

template <typename T>
void Lower(std::optional<T>& least, const std::optional<T>& limit) {
  if (limit && (!least || *limit < *least)) least = limit;
}

// quota / period, as microseconds of each.
std::optional<double> Cores(std::optional<int64_t> quota, std::optional<int64_t> period) {
  if (!quota || !period) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

}  // namespace

int UsableCores(const MachineFiles& files) {
  int cores = static_cast<int>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cores = std::max(1, CPU_COUNT(&set));
  std::optional<double> quota;
  const std::string group = OwnGroup(files, "cpu");
  ForGroups(files.cgroup_root, group, [&](const std::string& folder) {
    const std::vector<std::string> words = Words(folder + "/cpu.max");
    Lower(quota, Cores(Limit(words, 0), Limit(words, 1)));
  });
  ForGroups(files.cgroup_root + "/cpu", group, [&](const std::string& folder) {
    Lower(quota, Cores(Limit(Words(folder + "/cpu.cfs_quota_us"), 0),
                       Limit(Words(folder + "/cpu.cfs_period_us"), 0)));
  });
  if (!quota || *quota >= cores) return cores;
  const int whole = static_cast<int>(*quota);
  return std::max(1, whole < *quota ? whole + 1 : whole);
}

int64_t UsableMemoryBytes(const MachineFiles& files) {
  const int64_t machine = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE);
  std::optional<int64_t> limit;
  const std::string group = OwnGroup(files, "memory");
  ForGroups(files.cgroup_root, group, [&](const std::string& folder) {
    Lower(limit, Limit(Words(folder + "/memory.max"), 0));
  });
  ForGroups(files.cgroup_root + "/memory", group, [&](const std::string& folder) {
    Lower(limit, Limit(Words(folder + "/memory.limit_in_bytes"), 0));
  });
  return limit ? std::min(machine, *limit) : machine;
}

}  // namespace kino::engine
