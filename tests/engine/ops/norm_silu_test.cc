#include "engine/ops/norm_silu.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/upsample_nearest3d.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "tests/support/at_threads.h"

namespace kino::engine {
namespace {

at::Tensor Random(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions());
}

double MaxError(const at::Tensor& got, const at::Tensor& expected) {
  return (got.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>();
}

class RmsNormSiluTest
    : public ::testing::TestWithParam<std::tuple<c10::ScalarType, int64_t, bool>> {};

TEST_P(RmsNormSiluTest, FusedEqualsComposed) {
  const auto [dtype, channels, modulated] = GetParam();
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(3);
  const auto normal = [&](at::IntArrayRef shape, double scale) {
    return (at::randn(shape, generator) * scale).to(dtype);
  };
  for (const double scale : {1e-3, 1.0, 40.0}) {
    const at::Tensor x = normal({3, 2, 5, channels}, scale);
    ChannelModulation modulation;
    if (modulated)
      modulation = {.shift = normal({channels}, 3), .scale_plus_one = normal({channels}, 30)};
    at::Tensor fused = at::empty_like(x), composed = at::empty_like(x);
    RmsNormSilu(x, modulation, fused);
    RmsNormSiluComposed(x, modulation, composed);
    // In bfloat16 a sum in another order may tip a rounding: one step of the largest value.
    const double largest = composed.abs().max().item<double>();
    EXPECT_LE(MaxError(fused, composed), largest * (dtype == at::kFloat ? 1e-6 : 1.0 / 128))
        << scale;
    const double typical =
        (fused.to(at::kDouble) - composed.to(at::kDouble)).abs().mean().item<double>();
    EXPECT_LE(typical, largest * (dtype == at::kFloat ? 1e-7 : 1e-4)) << scale;
  }
}

// Tasks of 32768 elements: three, and the last is smaller; into a part of a buffer.
TEST_P(RmsNormSiluTest, SeveralTasksEqualComposed) {
  const auto [dtype, channels, modulated] = GetParam();
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(3);
  const auto normal = [&](at::IntArrayRef shape) { return at::randn(shape, generator).to(dtype); };
  const at::Tensor x = normal({1, 3 * 32768 / channels + 11, 1, channels});
  ChannelModulation modulation;
  if (modulated) modulation = {.shift = normal({channels}), .scale_plus_one = normal({channels})};
  at::Tensor buffer = at::full({3, x.size(1), 1, channels}, 7, x.options());
  at::Tensor composed = at::empty_like(x);
  RmsNormSiluComposed(x, modulation, composed);
  const kino::testing::AtThreads several(3);
  RmsNormSilu(x, modulation, buffer.narrow(0, 1, 1));
  const double largest = composed.abs().max().item<double>();
  EXPECT_LE(MaxError(buffer.narrow(0, 1, 1), composed),
            largest * (dtype == at::kFloat ? 1e-6 : 1.0 / 128));
  EXPECT_TRUE((buffer.select(0, 0) == 7).all().item<bool>());
  EXPECT_TRUE((buffer.select(0, 2) == 7).all().item<bool>());
}

INSTANTIATE_TEST_SUITE_P(Shapes, RmsNormSiluTest,
                         ::testing::Combine(::testing::Values(at::kFloat, at::kBFloat16),
                                            ::testing::Values<int64_t>(1, 7, 16, 33, 512),
                                            ::testing::Bool()));

// The composed form against torch's own operators, frame by frame.
TEST(GroupNormSiluFormTest, ComposedIsTorchsNormOfEachFrame) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(3);
  const at::Tensor x = at::randn({3, 4, 5, 12}, generator) * 2 + 0.7;
  const FrameGroupNorm norm = {.groups = 4,
                               .eps = 1e-5,
                               .weight = at::randn({12}, generator),
                               .bias = at::randn({12}, generator)};
  at::Tensor composed = at::empty_like(x);
  GroupNormSiluComposed(x, norm, composed);
  for (int64_t frame = 0; frame < 3; ++frame) {
    const at::Tensor alone = x.narrow(0, frame, 1).permute({0, 3, 1, 2}).contiguous();
    const at::Tensor expected =
        at::silu(at::group_norm(alone, 4, norm.weight, norm.bias, 1e-5)).permute({0, 2, 3, 1});
    EXPECT_LE(MaxError(composed.narrow(0, frame, 1), expected), 2e-6);
  }
}

class GroupNormSiluTest : public ::testing::TestWithParam<std::tuple<c10::ScalarType, int64_t>> {};

// More positions than two blocks of moments, several tasks, into the inside of a buffer with a
// border.
TEST_P(GroupNormSiluTest, FusedEqualsComposed) {
  const auto [dtype, channels] = GetParam();
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(3);
  for (const double mean : {0.0, 3.0}) {
    const at::Tensor x = (at::randn({3, 29, 31, channels}, generator) * 2 + mean).to(dtype);
    const FrameGroupNorm norm = {.groups = channels / 4,
                                 .eps = 1e-5,
                                 .weight = at::randn({channels}, generator).to(dtype),
                                 .bias = at::randn({channels}, generator).to(dtype)};
    at::Tensor composed = at::empty_like(x);
    GroupNormSiluComposed(x, norm, composed);
    const at::Tensor buffer = at::full({3, 31, 33, channels}, 7, x.options());
    const kino::testing::AtThreads several(3);
    GroupNormSilu(x, norm, buffer.narrow(1, 1, 29).narrow(2, 1, 31));
    const at::Tensor fused = buffer.narrow(1, 1, 29).narrow(2, 1, 31);
    const double largest = composed.abs().max().item<double>();
    EXPECT_LE(MaxError(fused, composed), largest * (dtype == at::kFloat ? 2e-6 : 1.0 / 64));
    const double typical =
        (fused.to(at::kDouble) - composed.to(at::kDouble)).abs().mean().item<double>();
    // The mean is taken off by adding: a bit or two where it is larger than the deviation.
    EXPECT_LE(typical, largest * (dtype == at::kFloat ? 3e-7 : 3e-4));
    EXPECT_TRUE((buffer.select(1, 0) == 7).all().item<bool>());
    EXPECT_TRUE((buffer.select(2, 32) == 7).all().item<bool>());
  }
}

// Of each frame, and of all as one; then some frames at a time, into the inside of a buffer.
TEST_P(GroupNormSiluTest, InTwoItIsTheSame) {
  const auto [dtype, channels] = GetParam();
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(3);
  const at::Tensor x = (at::randn({7, 19, 31, channels}, generator) * 2 + 1).to(dtype);
  const FrameGroupNorm norm = {.groups = channels / 4,
                               .eps = 1e-6,
                               .weight = at::randn({channels}, generator).to(dtype),
                               .bias = at::randn({channels}, generator).to(dtype)};
  const kino::testing::AtThreads several(3);
  at::Tensor whole = at::empty_like(x), expected = at::empty_like(x);
  GroupNormSilu(x, norm, whole);
  AffineSilu(x, GroupNormAffine(x, norm), expected);
  EXPECT_TRUE(whole.equal(expected));
  const at::Tensor tall = x.flatten(0, 1).unsqueeze(0);
  const at::Tensor affine = GroupNormAffine(tall, norm);
  const at::Tensor composed = GroupNormAffineComposed(tall, norm);
  ASSERT_EQ(affine.sizes(), composed.sizes());
  EXPECT_LE(MaxError(affine, composed), 2e-6 * composed.abs().max().item<double>());
  GroupNormSilu(tall, norm, expected.flatten(0, 1).unsqueeze(0));
  AffineSiluComposed(x, affine, whole);
  const at::Tensor buffer = at::full({7, 21, 33, channels}, 7, x.options());
  const at::Tensor inside = buffer.narrow(1, 1, 19).narrow(2, 1, 31);
  for (int64_t first = 0; first < 7; first += 3) {
    const int64_t count = std::min<int64_t>(3, 7 - first);
    AffineSilu(x.narrow(0, first, count), affine, inside.narrow(0, first, count));
  }
  EXPECT_TRUE(inside.equal(expected));
  const double largest = expected.abs().max().item<double>();
  EXPECT_LE(MaxError(whole, expected), largest * (dtype == at::kFloat ? 2e-6 : 1.0 / 64));
  EXPECT_TRUE((buffer.select(1, 20) == 7).all().item<bool>());
  EXPECT_TRUE((buffer.select(2, 0) == 7).all().item<bool>());
}

INSTANTIATE_TEST_SUITE_P(Shapes, GroupNormSiluTest,
                         ::testing::Combine(::testing::Values(at::kFloat, at::kBFloat16),
                                            ::testing::Values<int64_t>(4, 12, 128)));

// Frames, coarse frames: an odd clip's first frame stands by itself.
TEST(GroupNormModulateSiluTest, FusedEqualsComposedAndTorch) {
  for (const auto& [frames, coarse] :
       {std::pair<int64_t, int64_t>{9, 3}, {8, 2}, {5, 3}, {2, 2}, {1, 1}}) {
    for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const int64_t channels = 24;
      const at::Tensor x = Random({frames, 16, 12, channels}, 1).mul(2).add(1).to(dtype);
      const FrameGroupNorm norm = {.groups = 4,
                                   .eps = 1e-6,
                                   .weight = Random({channels}, 2).to(dtype),
                                   .bias = Random({channels}, 3).to(dtype)};
      const NearestModulation modulation = {.scale = Random({coarse, 4, 6, channels}, 4).to(dtype),
                                            .shift = Random({coarse, 4, 6, channels}, 5).to(dtype)};
      at::Tensor composed = at::empty_like(x), fused = at::empty_like(x);
      GroupNormModulateSiluComposed(x, norm, modulation, composed);
      const kino::testing::AtThreads several(3);
      GroupNormModulateSilu(x, norm, modulation, fused);
      const at::Tensor difference = (fused - composed).abs().to(at::kFloat);
      EXPECT_LE(difference.max().item<float>(), dtype == at::kFloat ? 2e-5 : 0.13)
          << frames << " " << dtype;
      if (dtype != at::kFloat) continue;
      std::vector<at::Tensor> wide;
      for (const at::Tensor& map : {modulation.scale, modulation.shift}) {
        const at::Tensor planes = map.permute({3, 0, 1, 2}).unsqueeze(0);
        const int64_t alone = frames > 1 && frames % 2 == 1 ? 1 : 0;
        std::vector<at::Tensor> parts;
        for (const auto& [first, count, to] :
             {std::tuple<int64_t, int64_t, int64_t>{0, alone, alone},
              {alone, coarse - alone, frames - alone}}) {
          if (count == 0) continue;
          parts.push_back(at::upsample_nearest3d(planes.narrow(2, first, count), {to, 16, 12}));
        }
        wide.push_back(at::cat(parts, 2));
      }
      const at::Tensor normed = at::group_norm(x.permute({3, 0, 1, 2}).unsqueeze(0).contiguous(), 4,
                                               norm.weight, norm.bias, 1e-6);
      const at::Tensor torchs =
          at::silu(normed * wide[0] + wide[1]).squeeze(0).permute({1, 2, 3, 0});
      EXPECT_LE((fused - torchs).abs().max().item<float>(), 2e-5) << frames;
    }
  }
}

TEST(GroupNormModulateSiluTest, WithoutParametersIsTheNormOverAllFrames) {
  const at::Tensor x = Random({3, 8, 6, 16}, 1), out = at::empty_like(x);
  const FrameGroupNorm norm = {
      .groups = 4, .eps = 1e-6, .weight = Random({16}, 2), .bias = Random({16}, 3)};
  GroupNormModulateSilu(x, norm, {}, out);
  const at::Tensor normed = at::group_norm(x.permute({3, 0, 1, 2}).unsqueeze(0).contiguous(), 4,
                                           norm.weight, norm.bias, 1e-6);
  const at::Tensor expected = at::silu(normed).squeeze(0).permute({1, 2, 3, 0});
  EXPECT_LE((out - expected).abs().max().item<float>(), 5e-6);
}

TEST(GroupNormModulateSiluTest, ParametersOfNoSuchFramesAreRefused) {
  at::Tensor x = Random({8, 16, 12, 8}, 1), out = at::empty_like(x);
  const at::Tensor channel = Random({8}, 2);
  const FrameGroupNorm norm = {.groups = 4, .weight = channel, .bias = channel};
  const std::vector<std::vector<int64_t>> shapes = {
      {3, 4, 6, 8}, {2, 5, 6, 8}, {2, 4, 5, 8}, {2, 4, 6, 4}};
  for (const std::vector<int64_t>& shape : shapes) {
    const at::Tensor map = Random(shape, 3);
    EXPECT_THROW(GroupNormModulateSilu(x, norm, {.scale = map, .shift = map}, out), c10::Error)
        << at::IntArrayRef(shape);
  }
}

TEST(GroupNormSiluFormTest, GainsAndShiftsOfOtherFramesAreRefused) {
  const at::Tensor x = at::full({3, 2, 2, 6}, 1.0);
  at::Tensor out = at::empty_like(x);
  const std::vector<std::vector<int64_t>> shapes = {{2, 2, 6}, {3, 1, 6}, {1, 2, 4}, {2, 6}};
  for (const std::vector<int64_t>& shape : shapes)
    EXPECT_THROW(AffineSilu(x, at::full(shape, 1.0), out), c10::Error) << at::IntArrayRef(shape);
}

TEST(GroupNormSiluFormTest, GroupsThatDoNotDivideTheChannelsAreRefused) {
  const at::Tensor x = at::full({1, 2, 2, 6}, 1.0);
  at::Tensor out = at::empty_like(x);
  EXPECT_THROW(GroupNormSilu(x, {.groups = 4, .weight = {}, .bias = {}}, out), c10::Error);
  EXPECT_THROW(GroupNormAffine(x, {.groups = 4, .weight = {}, .bias = {}}), c10::Error);
}

}  // namespace
}  // namespace kino::engine
