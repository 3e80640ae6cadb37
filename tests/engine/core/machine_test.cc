#include "engine/core/machine.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/temp_dir.h"

namespace kino::engine {
namespace {

class MachineTest : public ::testing::Test {
 protected:
  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path full = std::filesystem::path(folder_.path()) / path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << text;
  }
  MachineFiles Files() const { return {folder_.path() + "/cgroup", folder_.path() + "/own"}; }
  int Cores() const { return UsableCores(Files()); }
  int64_t Memory() const { return UsableMemoryBytes(Files()); }

  // Without any cgroup.
  const int all_cores_ = UsableCores({"/nowhere", "/nowhere"});
  const int64_t all_memory_ = UsableMemoryBytes({"/nowhere", "/nowhere"});
  kino::testing::TempDir folder_;
};

TEST_F(MachineTest, WithoutACgroupItIsTheMachine) {
  EXPECT_GE(all_cores_, 1);
  EXPECT_GT(all_memory_, int64_t{1} << 28);
  EXPECT_EQ(Cores(), all_cores_);
  EXPECT_EQ(Memory(), all_memory_);
}

TEST_F(MachineTest, TheGroupsOwnLimitCounts) {
  Write("own", "0::/kino/worker\n");
  Write("cgroup/kino/worker/cpu.max", "50000 100000\n");
  Write("cgroup/kino/worker/memory.max", "104857600\n");
  EXPECT_EQ(Cores(), 1);
  EXPECT_EQ(Memory(), 104857600);
}

TEST_F(MachineTest, APartOfACoreIsRoundedUp) {
  if (all_cores_ < 2) GTEST_SKIP() << "one core";
  Write("own", "0::/\n");
  Write("cgroup/cpu.max", "110000 100000\n");
  EXPECT_EQ(Cores(), 2);
}

TEST_F(MachineTest, MaxIsNoLimitAndMoreThanThereIsChangesNothing) {
  Write("own", "0::/kino\n");
  Write("cgroup/kino/cpu.max", "max 100000\n");
  Write("cgroup/kino/memory.max", "max\n");
  EXPECT_EQ(Cores(), all_cores_);
  EXPECT_EQ(Memory(), all_memory_);
  Write("cgroup/kino/cpu.max", "99900000 100000\n");
  Write("cgroup/kino/memory.max", "9223372036854771712\n");
  EXPECT_EQ(Cores(), all_cores_);
  EXPECT_EQ(Memory(), all_memory_);
}

TEST_F(MachineTest, ATighterGroupAboveCounts) {
  Write("own", "0::/pod/kino\n");
  Write("cgroup/pod/cpu.max", "100000 100000\n");
  Write("cgroup/pod/kino/cpu.max", "400000 100000\n");
  Write("cgroup/pod/memory.max", "1000000\n");
  Write("cgroup/pod/kino/memory.max", "2000000\n");
  EXPECT_EQ(Cores(), 1);
  EXPECT_EQ(Memory(), 1000000);
}

TEST_F(MachineTest, VersionOneHasAFolderForEachController) {
  Write("own", "5:cpu,cpuacct:/kino\n4:memory:/kino\n0::/other\n");
  Write("cgroup/cpu/kino/cpu.cfs_quota_us", "100000\n");
  Write("cgroup/cpu/kino/cpu.cfs_period_us", "100000\n");
  Write("cgroup/memory/kino/memory.limit_in_bytes", "5000000\n");
  EXPECT_EQ(Cores(), 1);
  EXPECT_EQ(Memory(), 5000000);
  Write("cgroup/cpu/kino/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(Cores(), all_cores_);
}

TEST_F(MachineTest, AHostsPathInAContainerFallsBackToTheRoot) {
  Write("own", "0::/../../host/path\n");
  Write("cgroup/memory.max", "3000000\n");
  EXPECT_EQ(Memory(), 3000000);
}

TEST_F(MachineTest, WhatIsNoNumberIsNoLimit) {
  Write("own", "not a cgroup\n::\n");
  Write("cgroup/cpu.max", "lots of it\n");
  Write("cgroup/memory.max", "-5 0x12\n");
  EXPECT_EQ(Cores(), all_cores_);
  EXPECT_EQ(Memory(), all_memory_);
}

}  // namespace
}  // namespace kino::engine
