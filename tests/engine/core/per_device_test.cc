#include "engine/core/per_device.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace kino::engine {
namespace {

TEST(PerDeviceTest, EachDeviceIsAskedOnce) {
  PerDevice<std::string> names;
  int asked = 0;  // under PerDevice's lock
  const auto name_of = [&](int index) -> const std::string& {
    return names.Get(index, [&] {
      ++asked;
      return "device " + std::to_string(index);
    });
  };
  const std::string* const first = &name_of(0);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) threads.emplace_back([&, i] { name_of(i % 2); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(asked, 2);
  EXPECT_EQ(&name_of(0), first);
  EXPECT_EQ(name_of(1), "device 1");
}

TEST(PerDeviceTest, ADeviceThatDidNotTellIsAskedAgain) {
  PerDevice<int> kept;
  EXPECT_THROW(kept.Get(0, []() -> int { throw std::runtime_error("busy"); }), std::runtime_error);
  EXPECT_EQ(kept.Get(0, [] { return 5; }), 5);
  EXPECT_EQ(kept.Get(0, [] { return 6; }), 5);
}

}  // namespace
}  // namespace kino::engine
