// Whether a device computes what it must: a product, a convolution and an attention of the engine's
// own operators, in float32 and bfloat16, of numbers that are always the same. Needs no model.
// Pure functions.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace kino::engine {

// One operator's result as a sum, each element times a small number of its own, so that two that
// are swapped show.
struct DeviceChecksum {
  std::string name;  // "product in float32"
  double expected = 0;
  double got = 0;
  double tolerance = 0;  // most that they may be apart
};

// Throws what torch throws.
std::vector<DeviceChecksum> ComputeDeviceChecksums(c10::Device device);
// INTERNAL for the first that is wrong; one that is no number is.
absl::Status JudgeDeviceChecksums(const std::vector<DeviceChecksum>& checksums);
// Both; exceptions become statuses as RunGuarded's do.
absl::Status CheckDevice(c10::Device device);

// For tests, which compute the same without torch. Multiples of 1/4 from -1 to 1: sums of their
// products are exact in float32, in whatever order.
std::vector<float> DeviceCheckNumbers(uint64_t seed, int64_t count);
double DeviceCheckSum(const float* values, int64_t count);

}  // namespace kino::engine
