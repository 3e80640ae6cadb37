#include "engine/device_check.h"

#include <ATen/ops/tensor.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/core/status_bridge.h"
#include "engine/core/trace.h"
#include "engine/ops/attention.h"
#include "engine/ops/conv3d.h"
#include "engine/ops/linear.h"

namespace kino::engine {
namespace {

// Knuth's; not torch's generator, whose numbers a version may change.
class Numbers {
 public:
  explicit Numbers(uint64_t seed) : state_(seed) {}
  int Below(int limit) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<int>((state_ >> 33) % static_cast<uint64_t>(limit));
  }

 private:
  uint64_t state_;
};

at::Tensor Input(uint64_t seed, at::IntArrayRef shape, c10::ScalarType dtype, c10::Device device) {
  return at::tensor(DeviceCheckNumbers(seed, c10::multiply_integers(shape)))
      .view(shape)
      .to(dtype)
      .to(device);
}

at::Tensor Product(c10::ScalarType dtype, c10::Device device) {
  return Linear(Input(1, {512, 256}, dtype, device), Input(2, {1024, 256}, dtype, device),
                Input(3, {1024}, dtype, device));
}
at::Tensor Convolution(c10::ScalarType dtype, c10::Device device) {
  return Conv3d(Input(4, {5, 24, 24, 16}, dtype, device),
                Input(5, {32, 16, 3, 3, 3}, dtype, device), Input(6, {32}, dtype, device), {});
}
at::Tensor AttentionOf(c10::ScalarType dtype, c10::Device device) {
  return Attention(Input(7, {1, 256, 128}, dtype, device), Input(8, {1, 256, 128}, dtype, device),
                   Input(9, {1, 256, 128}, dtype, device), /*heads=*/4);
}

struct Check {
  const char* name;
  at::Tensor (*compute)(c10::ScalarType, c10::Device);
  double expected;
  // Shares of the sum of all magnitudes. A product is exact in float32. Libraries may convolve by
  // transforms that are not, and the exponentials of attention are rounded. An element of bfloat16
  // is off by up to 2^-9 of itself, up as often as down, so that the sum of many thousands is off
  // by some hundredth of that.
  double float32_tolerance, bfloat16_tolerance;
};
constexpr Check kChecks[] = {
    {"product", Product, 58253.6875, 0, 2e-4},
    {"convolution", Convolution, 8803.8125, 1e-6, 2e-4},
    {"attention", AttentionOf, 508.088244, 1e-6, 2e-3},
};

}  // namespace

std::vector<float> DeviceCheckNumbers(uint64_t seed, int64_t count) {
  Numbers numbers(seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(numbers.Below(9) - 4) / 4;
  return values;
}

double DeviceCheckSum(const float* values, int64_t count) {
  Numbers numbers(0);
  double sum = 0;
  for (int64_t i = 0; i < count; ++i)
    sum += static_cast<double>(values[i]) * (1 + numbers.Below(7));
  return sum;
}

std::vector<DeviceChecksum> ComputeDeviceChecksums(c10::Device device) {
  std::vector<DeviceChecksum> checksums;
  for (const Check& check : kChecks) {
    for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const at::Tensor result = ToHost(check.compute(dtype, device), at::kFloat).contiguous();
      const at::Tensor magnitudes = result.abs();
      const bool is_float = dtype == at::kFloat;
      checksums.push_back(
          {.name = absl::StrCat(check.name, " in ", is_float ? "float32" : "bfloat16"),
           .expected = check.expected,
           .got = DeviceCheckSum(result.const_data_ptr<float>(), result.numel()),
           .tolerance = (is_float ? check.float32_tolerance : check.bfloat16_tolerance) *
                        DeviceCheckSum(magnitudes.const_data_ptr<float>(), result.numel())});
    }
  }
  return checksums;
}

absl::Status JudgeDeviceChecksums(const std::vector<DeviceChecksum>& checksums) {
  for (const DeviceChecksum& each : checksums) {
    // Infinite results have an infinite tolerance.
    if (std::isfinite(each.got) && std::abs(each.got - each.expected) <= each.tolerance) continue;
    return absl::InternalError(absl::StrCat(
        "the device computes wrongly: ", each.name, " gave the sum ", each.got, ", expected ",
        each.expected, " within ", each.tolerance, "; reset the device or take it out"));
  }
  return absl::OkStatus();
}

absl::Status CheckDevice(c10::Device device) {
  return RunGuarded(device, [&] { return JudgeDeviceChecksums(ComputeDeviceChecksums(device)); });
}

}  // namespace kino::engine
