#include "engine/core/memory_counter.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "engine/core/status_bridge.h"

namespace kino::engine {
namespace {

at::Tensor Bytes(int64_t count) { return at::empty({count}, at::TensorOptions().dtype(at::kByte)); }

// malloc sets aside up to a page or two more than is asked for.
void ExpectAbout(int64_t bytes, int64_t asked) {
  EXPECT_GE(bytes, asked);
  EXPECT_LE(bytes, asked + 16384);
}

TEST(MemoryCounterTest, CountsWhatLivesAndTheMostThereWas) {
  InstallMemoryCounter();
  const int64_t before = HostMemoryCount().live_bytes;
  ResetHostMemoryPeak();
  {
    const at::Tensor one = Bytes(1 << 20);
    { const at::Tensor two = Bytes(3 << 20); }
    ExpectAbout(HostMemoryCount().live_bytes - before, 1 << 20);
  }
  EXPECT_EQ(HostMemoryCount().live_bytes, before);
  ExpectAbout(HostMemoryCount().peak_bytes - before, 4 << 20);
}

TEST(MemoryCounterTest, BlocksAreAlignedAsTorchAligns) {
  InstallMemoryCounter();
  std::vector<at::Tensor> all;
  for (const int64_t bytes : {1, 15, 16, 17, 63, 64, 65, 4095, 4096, 1 << 20, (64 << 20) + 1}) {
    all.push_back(Bytes(bytes).fill_(7));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(all.back().data_ptr()) % 64, 0) << bytes;
  }
  EXPECT_EQ(Bytes(0).data_ptr(), nullptr);
}

TEST(MemoryCounterTest, AFreedBlockServesTheNextOfItsSize) {
  InstallMemoryCounter();
  constexpr int64_t kBlock = 2 << 20;
  constexpr int kRounds = 40;
  // Once one such block was freed, malloc takes the next from the heap rather than from mmap.
  { const at::Tensor first = Bytes(2 * kBlock); }
  const size_t before = mallinfo2().arena;
  // What stays behind after every block, of every size: a small one next to it, in any gap.
  std::vector<std::unique_ptr<void, decltype(&std::free)>> stay;
  for (int round = 0; round < kRounds; ++round) {
    const at::Tensor block = Bytes(kBlock);
    for (const size_t size : {24, 40, 56, 72, 88, 104, 200})
      stay.emplace_back(std::malloc(size), &std::free);
  }
  EXPECT_LT(mallinfo2().arena, before + 8 * kBlock);
}

TEST(MemoryCounterTest, WhatTheSystemRefusesIsOutOfMemory) {
  InstallMemoryCounter();
  for (const int64_t bytes : {int64_t{1} << 60, std::numeric_limits<int64_t>::max() - 63,
                              std::numeric_limits<int64_t>::max()}) {
    const absl::Status status = RunGuarded([&] {
      Bytes(bytes);
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.GetPayload(kOutOfMemoryPayload)) << status;
    EXPECT_NE(status.message().find("host memory ran out: you tried to allocate " +
                                    std::to_string(bytes) + " bytes"),
              std::string::npos)
        << status;
  }
}

}  // namespace
}  // namespace kino::engine
