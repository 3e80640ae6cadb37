// The base of tests that need a GPU. A machine without one skips them; a GPU that is there and does
// not open fails them.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include "engine/core/device.h"

namespace kino::testing {

// `Base` is ::testing::Test or ::testing::TestWithParam<...>. A derived SetUp calls this one first
// and returns unless opened().
template <typename Base = ::testing::Test>
class CudaTest : public Base {
 protected:
  void SetUp() override {
    // The driver's control node is there wherever a process may reach an NVIDIA GPU, in containers
    // too; under WSL it is /dev/dxg.
    if (access("/dev/nvidiactl", F_OK) != 0 && access("/dev/dxg", F_OK) != 0) {
      GTEST_SKIP()
          << "this machine has no NVIDIA GPU: neither /dev/nvidiactl nor /dev/dxg is there";
    }
    const absl::StatusOr<c10::Device> device = engine::OpenDevice("cuda:0");
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *device;
  }
  bool opened() const { return device_.is_cuda(); }

  c10::Device device_{c10::DeviceType::CPU};
};

}  // namespace kino::testing
