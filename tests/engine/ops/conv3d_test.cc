#include "engine/ops/conv3d.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

namespace kino::engine {
namespace {

double MaxError(const at::Tensor& got, const at::Tensor& expected) {
  return (got.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>();
}

// A weight so large that it is packed in three pieces, the last smaller than the others.
TEST(Conv3dTest, WideConvolutionsInPiecesEqualTorchs) {
  const c10::InferenceMode inference_mode;
  constexpr int64_t kIn = 768, kOut = 900;
  ASSERT_LT(2 * PackedChannels(kOut * kIn * 27, kOut), kOut);
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(11);
  const at::Tensor x = at::randn({4, 3, 5, kIn}, generator),
                   weight = at::randn({kOut, kIn, 3, 3, 3}, generator) / 144.0,
                   bias = at::randn({kOut}, generator);
  const at::Tensor got = Conv3d(x, weight, bias, {.t = 1, .h = 2, .w = 2});
  const at::Tensor expected =
      at::conv3d(x.permute({3, 0, 1, 2}).unsqueeze(0), weight, bias, {1, 2, 2}, {0, 1, 1})
          .squeeze(0)
          .permute({1, 2, 3, 0});
  // Sums of 20736 products of about 1/144, in another order.
  EXPECT_LE(MaxError(got, expected), 2e-5);
  EXPECT_TRUE(got.is_contiguous());
}

TEST(Conv3dTest, WithoutPaddingTheInputIsTakenAsItIs) {
  const c10::InferenceMode inference_mode;
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(5);
  const at::Tensor x = at::randn({4, 6, 5, 8}, generator),
                   weight = at::randn({16, 8, 3, 3, 3}, generator) / 15.0,
                   bias = at::randn({16}, generator);
  const at::Tensor input = x.unsqueeze(0).permute({0, 4, 1, 2, 3});
  for (const int64_t padding : {0, 1}) {
    const at::Tensor expected = at::conv3d(input, weight, bias, {1, 1, 1}, {0, padding, padding})
                                    .squeeze(0)
                                    .permute({1, 2, 3, 0});
    const at::Tensor got =
        Conv3d(x, weight, bias, {}, padding == 0 ? SpacePadding::kNone : SpacePadding::kZeros);
    EXPECT_EQ(got.sizes(), expected.sizes());
    EXPECT_LE(MaxError(got, expected), 2e-6);
  }
}

}  // namespace
}  // namespace kino::engine
