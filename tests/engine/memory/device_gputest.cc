// What the engine asks a CUDA device. Skipped where there is none.
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <optional>

#include "engine/core/device.h"
#include "engine/core/device_clock.h"
#include "tests/support/cuda_test.h"

namespace kino::engine {
namespace {

using CudaDeviceTest = ::kino::testing::CudaTest<>;

constexpr int64_t kBytes = int64_t{256} << 20;

// The context, other processes, and here what does not come from torch's allocator.
TEST_F(CudaDeviceTest, WhatOthersHoldIsNotAvailable) {
  const DeviceInfo before = GetDeviceInfo(device_);
  EXPECT_LT(before.available_bytes, before.total_bytes);
  void* memory = nullptr;
  ASSERT_EQ(cudaMalloc(&memory, kBytes), cudaSuccess);
  EXPECT_LE(GetDeviceInfo(device_).available_bytes, before.available_bytes - kBytes);
  ASSERT_EQ(cudaFree(memory), cudaSuccess);
  // Tensors, and what the allocator keeps of them, are.
  at::empty({kBytes}, at::TensorOptions(at::kByte).device(device_));
  EXPECT_GE(GetDeviceInfo(device_).available_bytes, before.available_bytes - (kBytes >> 3));
  ReleaseCachedMemory(device_);
}

TEST_F(CudaDeviceTest, SecondsAreThoseOfTheWork) {
  const auto clock = DeviceClock::Create(device_);
  const at::Tensor x = at::ones({8192, 8192}, at::TensorOptions(at::kFloat).device(device_));
  at::mm(x, x);
  const auto begin = clock->Mark();
  for (int i = 0; i < 20; ++i) at::mm(x, x);
  const auto end = clock->Mark();
  EXPECT_EQ(clock->Between(*begin, *end, /*wait=*/false), std::nullopt);
  const std::optional<double> seconds = clock->Between(*begin, *end, /*wait=*/true);
  ASSERT_TRUE(seconds.has_value());
  EXPECT_GT(*seconds, 0);
  EXPECT_EQ(clock->Between(*begin, *end, /*wait=*/false), seconds);
}

}  // namespace
}  // namespace kino::engine
