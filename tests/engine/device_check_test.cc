#include "engine/device_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

namespace kino::engine {
namespace {

using ::testing::HasSubstr;

const c10::Device kCpu(c10::DeviceType::CPU);

// Of a result that was computed in double and rounded once.
double SumOf(const std::vector<double>& result) {
  const std::vector<float> rounded(result.begin(), result.end());
  return DeviceCheckSum(rounded.data(), static_cast<int64_t>(rounded.size()));
}

double ProductSum() {
  const auto x = DeviceCheckNumbers(1, 512 * 256), w = DeviceCheckNumbers(2, 1024 * 256),
             bias = DeviceCheckNumbers(3, 1024);
  std::vector<double> result;
  for (int row = 0; row < 512; ++row) {
    for (int column = 0; column < 1024; ++column) {
      double sum = static_cast<double>(bias[static_cast<size_t>(column)]);
      for (int i = 0; i < 256; ++i)
        sum += static_cast<double>(x[static_cast<size_t>(row * 256 + i)]) *
               static_cast<double>(w[static_cast<size_t>(column * 256 + i)]);
      result.push_back(sum);
    }
  }
  return SumOf(result);
}

double ConvolutionSum() {
  constexpr int kSide = 24, kIn = 16, kOut = 32;
  const auto x = DeviceCheckNumbers(4, 5 * kSide * kSide * kIn),
             w = DeviceCheckNumbers(5, kOut * kIn * 27), bias = DeviceCheckNumbers(6, kOut);
  std::vector<double> result;
  for (int t = 0; t < 3; ++t) {
    for (int y = 0; y < kSide; ++y) {
      for (int z = 0; z < kSide; ++z) {
        for (int out = 0; out < kOut; ++out) {
          double sum = static_cast<double>(bias[static_cast<size_t>(out)]);
          for (int in = 0; in < kIn; ++in) {
            for (int k = 0; k < 27; ++k) {
              const int from_t = t + k / 9, from_y = y + k / 3 % 3 - 1, from_z = z + k % 3 - 1;
              if (from_y < 0 || from_y >= kSide || from_z < 0 || from_z >= kSide) continue;
              const int place = ((from_t * kSide + from_y) * kSide + from_z) * kIn + in;
              sum += static_cast<double>(x[static_cast<size_t>(place)]) *
                     static_cast<double>(w[static_cast<size_t>((out * kIn + in) * 27 + k)]);
            }
          }
          result.push_back(sum);
        }
      }
    }
  }
  return SumOf(result);
}

double AttentionSum() {
  constexpr int kRows = 256, kHeads = 4, kWidth = 32, kAll = kHeads * kWidth;
  const auto q = DeviceCheckNumbers(7, kRows * kAll), k = DeviceCheckNumbers(8, kRows * kAll),
             v = DeviceCheckNumbers(9, kRows * kAll);
  const auto at = [](const std::vector<float>& values, int row, int head, int i) {
    return static_cast<double>(values[static_cast<size_t>(row * kAll + head * kWidth + i)]);
  };
  std::vector<double> result;
  for (int row = 0; row < kRows; ++row) {
    for (int head = 0; head < kHeads; ++head) {
      std::vector<double> weights;
      double all = 0;
      for (int key = 0; key < kRows; ++key) {
        double score = 0;
        for (int i = 0; i < kWidth; ++i) score += at(q, row, head, i) * at(k, key, head, i);
        weights.push_back(std::exp(score / std::sqrt(static_cast<double>(kWidth))));
        all += weights.back();
      }
      for (int i = 0; i < kWidth; ++i) {
        double sum = 0;
        for (int key = 0; key < kRows; ++key)
          sum += weights[static_cast<size_t>(key)] / all * at(v, key, head, i);
        result.push_back(sum);
      }
    }
  }
  return SumOf(result);
}

TEST(DeviceCheckTest, ExpectedSumsAreThoseOfPlainLoops) {
  const std::map<std::string, double> plain = {{"product in float32", ProductSum()},
                                               {"convolution in float32", ConvolutionSum()},
                                               {"attention in float32", AttentionSum()}};
  int found = 0;
  for (const DeviceChecksum& each : ComputeDeviceChecksums(kCpu)) {
    const auto it = plain.find(each.name);
    if (it == plain.end()) continue;
    ++found;
    // Written to nine digits.
    EXPECT_NEAR(each.expected, it->second, 1e-8 * std::abs(it->second)) << each.name;
  }
  EXPECT_EQ(found, 3);
}

TEST(DeviceCheckTest, AHealthyDevicePasses) {
  EXPECT_EQ(CheckDevice(kCpu), absl::OkStatus());
  EXPECT_EQ(ComputeDeviceChecksums(kCpu).size(), 6u);
}

TEST(DeviceCheckTest, AWrongSumIsNamedWithWhatWasExpectedAndWhatCame) {
  const auto good = ComputeDeviceChecksums(kCpu);
  for (size_t i = 0; i < good.size(); ++i) {
    SCOPED_TRACE(good[i].name);
    for (const double wrong :
         {good[i].expected + good[i].tolerance + 1, good[i].expected - good[i].tolerance - 1, 0.0,
          std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
      auto bad = good;
      bad[i].got = wrong;
      // What goes wrong with the numbers goes wrong with the sum of their magnitudes.
      if (!std::isfinite(wrong)) bad[i].tolerance = wrong;
      const absl::Status status = JudgeDeviceChecksums(bad);
      EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << wrong;
      EXPECT_THAT(std::string(status.message()), HasSubstr(good[i].name));
      EXPECT_THAT(std::string(status.message()), HasSubstr("expected"));
    }
  }
}

// One element that is off by a little, or two that are swapped, in a large result.
TEST(DeviceCheckTest, OneWrongElementOfAnExactProductShows) {
  std::vector<float> values = DeviceCheckNumbers(3, 4096);
  const double sum = DeviceCheckSum(values.data(), 4096);
  for (const size_t at : {size_t{0}, size_t{1234}, size_t{4095}}) {
    std::vector<float> wrong = values;
    wrong[at] += 0.25f;
    EXPECT_NE(DeviceCheckSum(wrong.data(), 4096), sum) << at;
  }
  for (const DeviceChecksum& each : ComputeDeviceChecksums(kCpu)) {
    if (each.name == "product in float32") {
      EXPECT_EQ(each.tolerance, 0);
    }
    // What is the same everywhere but for a factor shows too.
    EXPECT_GT(std::abs(each.expected), 20 * each.tolerance) << each.name;
    RecordProperty(each.name, std::to_string((each.got - each.expected) / each.tolerance));
    EXPECT_LE(std::abs(each.got - each.expected), each.tolerance / 4) << each.name << ": no room";
  }
}

}  // namespace
}  // namespace kino::engine
