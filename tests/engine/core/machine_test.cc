// What the control groups leave of the machine, on real files in a folder of the test's own.
#include "engine/core/machine.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <initializer_list>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/support/temp_dir.h"

namespace kino::engine {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

int64_t MachineMemory() { return int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE); }

int AllowedCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  EXPECT_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
  return CPU_COUNT(&set);
}

class MachineTest : public ::testing::Test {
 protected:
  void Groups(const std::string& lines) { folder_.Write("proc/self/cgroup", lines); }
  void Limit(const std::string& file, const std::string& text) {
    folder_.Write("sys/fs/cgroup/" + file, text + "\n");
  }
  // No limit holds: what the machine has.
  void ExpectMachine() {
    EXPECT_EQ(CgroupCores(files_), 0);
    EXPECT_EQ(CgroupMemoryBytes(files_), 0);
    EXPECT_EQ(UsableCores(files_), AllowedCpus());  // this folder knows of no hardware threads
    EXPECT_EQ(UsableMemoryBytes(files_), MachineMemory());
  }

  const testing::TempDir folder_;
  const MachineFiles files_{.proc = folder_.path() + "/proc", .sys = folder_.path() + "/sys"};
};

TEST_F(MachineTest, Version2LimitsOfTheOwnGroup) {
  Groups("0::/kino\n");
  Limit("kino/cpu.max", "300000 100000");
  Limit("kino/memory.max", "3221225472");
  EXPECT_EQ(CgroupCores(files_), 3);
  EXPECT_EQ(CgroupMemoryBytes(files_), 3 * kGiB);
}

TEST_F(MachineTest, PartsOfACoreAreRoundedUp) {
  Groups("0::/kino\n");
  Limit("kino/cpu.max", "250000 100000");
  EXPECT_EQ(CgroupCores(files_), 3);
  Limit("kino/cpu.max", "5000 100000");
  EXPECT_EQ(CgroupCores(files_), 1);
  EXPECT_EQ(UsableCores(files_), 1);
}

TEST_F(MachineTest, Version2WithoutLimitIsTheMachine) {
  Groups("0::/kino\n");
  Limit("kino/cpu.max", "max 100000");
  Limit("kino/memory.max", "max");
  ExpectMachine();
}

TEST_F(MachineTest, TheLeastAlongTheWayCounts) {
  Groups("0::/outer/middle/kino\n");
  Limit("outer/cpu.max", "800000 100000");
  Limit("outer/memory.max", "1073741824");
  Limit("outer/middle/cpu.max", "200000 100000");
  Limit("outer/middle/memory.max", "max");
  Limit("outer/middle/kino/cpu.max", "max 100000");
  Limit("outer/middle/kino/memory.max", "2147483648");
  Limit("sibling/cpu.max", "100000 100000");
  EXPECT_EQ(CgroupCores(files_), 2);
  EXPECT_EQ(CgroupMemoryBytes(files_), kGiB);
}

// A container sees its own group as the root; its path may still be the host's.
TEST_F(MachineTest, TheRootOfTheMountCounts) {
  Limit("cpu.max", "400000 100000");
  Limit("memory.max", "1073741824");
  Limit("../cpu.max", "200000 100000");  // none of the hierarchy's
  Limit("../memory.max", "1048576");
  for (const char* path : {"0::/\n", "0::/docker/1234\n", "0::/../other\n", "0::/../../a/b\n"}) {
    Groups(path);
    EXPECT_EQ(CgroupCores(files_), 4) << path;
    EXPECT_EQ(CgroupMemoryBytes(files_), kGiB) << path;
  }
}

TEST_F(MachineTest, Version1HasAHierarchyForEachController) {
  Groups("5:memory:/m/kino\n4:cpu,cpuacct:/c\n2:cpuset:/\n1:name=systemd:/\n");
  Limit("cpu,cpuacct/c/cpu.cfs_quota_us", "150000");
  Limit("cpu,cpuacct/c/cpu.cfs_period_us", "50000");
  Limit("memory/m/kino/memory.limit_in_bytes", "9223372036854771712");
  Limit("memory/m/memory.limit_in_bytes", "1073741824");
  EXPECT_EQ(CgroupCores(files_), 3);
  EXPECT_EQ(CgroupMemoryBytes(files_), kGiB);
}

TEST_F(MachineTest, Version1ControllersMayBeMountedUnderTheirOwnName) {
  Groups("4:cpu,cpuacct:/\n");
  Limit("cpu/cpu.cfs_quota_us", "500000");
  Limit("cpu/cpu.cfs_period_us", "100000");
  EXPECT_EQ(CgroupCores(files_), 5);
}

TEST_F(MachineTest, Version1WithoutLimitIsTheMachine) {
  Groups("5:memory:/\n4:cpu:/\n0::/\n");
  Limit("cpu/cpu.cfs_quota_us", "-1");
  Limit("cpu/cpu.cfs_period_us", "100000");
  for (const char* none : {"9223372036854771712", "9223372036854710272", "9223372036854775807"}) {
    Limit("memory/memory.limit_in_bytes", none);  // pages of 4 and 64 KiB
    ExpectMachine();
  }
}

TEST_F(MachineTest, BothVersionsMayLimitOneProcess) {
  Groups("5:memory:/kino\n0::/kino\n");
  Limit("memory/kino/memory.limit_in_bytes", "1073741824");
  Limit("unified/kino/cpu.max", "700000 100000");
  EXPECT_EQ(CgroupCores(files_), 7);
  EXPECT_EQ(CgroupMemoryBytes(files_), kGiB);
}

TEST_F(MachineTest, MissingFilesAreTheMachine) {
  ExpectMachine();
  Groups("5:memory:/kino\n4:cpu:/kino\n0::/kino\n");
  ExpectMachine();
  Limit("cpu/kino/cpu.cfs_quota_us", "100000");  // and no period
  ExpectMachine();
}

TEST_F(MachineTest, GarbageIsTheMachine) {
  for (const char* groups : {"", "\n\n", "::", "nonsense", "0:/kino", "x:cpu", ":::::"}) {
    Groups(groups);
    ExpectMachine();
  }
  Groups("5:memory:/v1\n4:cpu:/v1\n0::/kino\n");
  for (const char* text : {"", "abc", "0", "-5", "0 0", "1 0", "-1 -1", "1 2 3", "max",
                           "99999999999999999999999", "99999999999999999999999 1", "1e3 1e3"}) {
    SCOPED_TRACE(text);
    Limit("kino/cpu.max", text);
    Limit("cpu/v1/cpu.cfs_quota_us", text);
    Limit("cpu/v1/cpu.cfs_period_us", text);
    EXPECT_EQ(CgroupCores(files_), 0);
    EXPECT_EQ(UsableCores(files_), AllowedCpus());
  }
  for (const char* text : {"", "abc", "0", "-5", "4096x", "99999999999999999999999"}) {
    Limit("kino/memory.max", text);
    Limit("memory/v1/memory.limit_in_bytes", text);
    EXPECT_EQ(CgroupMemoryBytes(files_), 0) << text;
  }
}

TEST_F(MachineTest, ALimitAboveTheMachineChangesNothing) {
  Groups("0::/\n");
  Limit("cpu.max", "99999999999 100000");
  Limit("memory.max", std::to_string(MachineMemory() + 4096));
  EXPECT_EQ(UsableCores(files_), AllowedCpus());
  EXPECT_EQ(UsableMemoryBytes(files_), MachineMemory());
}

TEST_F(MachineTest, ALimitBelowTheMachineIsUsable) {
  Groups("0::/\n");
  Limit("cpu.max", "100000 100000");
  Limit("memory.max", "1048576");
  EXPECT_EQ(UsableCores(files_), 1);
  EXPECT_EQ(UsableMemoryBytes(files_), 1 << 20);
}

TEST_F(MachineTest, AffinityCounts) {
  int cores = 0;
  // The affinity is a thread's own.
  std::thread([&] {
    cpu_set_t all, one;
    CPU_ZERO(&one);
    ASSERT_EQ(sched_getaffinity(0, sizeof(all), &all), 0);
    int last = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &all)) last = cpu;
    }
    CPU_SET(last, &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    cores = UsableCores(files_);
  }).join();
  EXPECT_EQ(cores, 1);
}

TEST_F(MachineTest, HardwareThreadsOfOneCoreCountOnce) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  ASSERT_EQ(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    folder_.Write(absl::StrCat("sys/devices/system/cpu/cpu", cpu, "/topology/thread_siblings_list"),
                  "0-1023\n");
  }
  EXPECT_EQ(UsableCores(files_), 1);
}

TEST_F(MachineTest, OmpNumThreadsWins) {
  const char* const before = getenv("OMP_NUM_THREADS");
  const std::string kept = before != nullptr ? before : "";
  unsetenv("OMP_NUM_THREADS");
  EXPECT_EQ(DefaultThreads(6), 6);
  for (const auto& [text, threads] : std::initializer_list<std::pair<const char*, int>>{
           {"3", 3}, {" 4,2", 4}, {"", 6}, {"0", 6}, {"-1", 6}, {"many", 6}, {"1000000", 6}}) {
    setenv("OMP_NUM_THREADS", text, 1);
    EXPECT_EQ(DefaultThreads(6), threads) << text;
  }
  if (before != nullptr) {
    setenv("OMP_NUM_THREADS", kept.c_str(), 1);
  } else {
    unsetenv("OMP_NUM_THREADS");
  }
}

// Where this test runs.
TEST(ThisMachineTest, HasCoresAndMemory) {
  EXPECT_GE(UsableCores(), 1);
  EXPECT_LE(UsableCores(), AllowedCpus());
  EXPECT_GT(UsableMemoryBytes(), 1 << 20);
  EXPECT_LE(UsableMemoryBytes(), MachineMemory());
}

}  // namespace
}  // namespace kino::engine
