#include "engine/ops/half_rotary.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/at_threads.h"

namespace kino::engine {
namespace {

TEST(HalfRotaryTest, PairsOfEachAxisTurnByTheirPosition) {
  constexpr int64_t kHeads = 2, kHead = 12, kFrames = 2, kHeight = 3, kWidth = 2;
  const RotaryTable table =
      HalfRotaryTable({kFrames, kHeight, kWidth}, {2.2, 2.0, 0.5}, kHead, c10::Device(c10::kCPU));
  const at::Tensor x = at::randn({2, kFrames * kHeight * kWidth, kHeads * kHead});
  const at::Tensor got = HalfRotary(x.clone(), 3, table);
  double worst = 0;
  for (int64_t row = 0; row < x.size(0); ++row) {
    for (int64_t token = 0; token < x.size(1); ++token) {
      const double positions[] = {static_cast<double>(token / (kHeight * kWidth)) / 2.2,
                                  static_cast<double>(token / kWidth % kHeight) / 2.0,
                                  static_cast<double>(token % kWidth) / 0.5};
      for (int64_t head = 0; head < kHeads; ++head) {
        for (int64_t axis = 0; axis < 3; ++axis) {
          for (int64_t i = 0; i < 2; ++i) {
            const double angle = positions[axis] * std::pow(10000.0, -static_cast<double>(i) / 2);
            const int64_t first = head * kHead + axis * 4 + i, second = first + 2;
            const double a = x[row][token][first].item<double>(),
                         b = x[row][token][second].item<double>();
            worst = std::max({worst,
                              std::abs(got[row][token][first].item<double>() -
                                       (a * std::cos(angle) - b * std::sin(angle))),
                              std::abs(got[row][token][second].item<double>() -
                                       (b * std::cos(angle) + a * std::sin(angle)))});
          }
        }
      }
    }
  }
  EXPECT_LT(worst, 2e-6);
}

TEST(HalfRotaryTest, HalfPrecisionIsComputedInFloat32AndRoundedOnce) {
  const RotaryTable table = HalfRotaryTable({5}, {1.0}, 8, c10::Device(c10::kCPU));
  const at::Tensor x = at::randn({1, 5, 16}).to(at::kBFloat16);
  const at::Tensor want = HalfRotary(x.to(at::kFloat), 1, table).to(at::kBFloat16);
  EXPECT_TRUE(HalfRotary(x.clone(), 1, table).equal(want));
}

// Tasks of 16384 elements; one of the three goes on from the first video to the second.
TEST(HalfRotaryTest, FusedHasTheBitsOfTheComposedForm) {
  constexpr int64_t kHeads = 2, kHead = 24, kLength = (3 * 16384 / (kHeads * kHead) + 80) / 2;
  const RotaryTable table =
      HalfRotaryTable({kLength / 4, 2, 2}, {2.2, 2.0, 0.5}, kHead, c10::Device(c10::kCPU));
  for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor x = at::randn({2, kLength, kHeads * kHead}).to(dtype);
    const at::Tensor want = HalfRotaryComposed(x, 3, table);
    for (const int threads : {1, 3}) {
      const kino::testing::AtThreads several(threads);
      EXPECT_TRUE(HalfRotary(x.clone(), 3, table).equal(want)) << dtype << ", " << threads;
    }
  }
}

TEST(HalfRotaryTest, ATableOfAnotherSizeIsRefused) {
  const RotaryTable table = HalfRotaryTable({5}, {1.0}, 8, c10::Device(c10::kCPU));
  EXPECT_THROW(HalfRotary(at::randn({1, 4, 16}), 1, table), c10::Error);
  EXPECT_THROW(HalfRotary(at::randn({1, 5, 12}), 1, table), c10::Error);
}

}  // namespace
}  // namespace kino::engine
