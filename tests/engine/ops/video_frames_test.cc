#include "engine/ops/video_frames.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace kino::engine {
namespace {

at::Tensor Random(at::IntArrayRef shape) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(uint64_t{3}),
                   at::TensorOptions());
}

// Every half between two bytes and what lies beside it, what is clamped, what is no number.
at::Tensor Corners() {
  const at::Tensor halves = at::arange(-2, 514, at::kFloat).mul_(1.0 / 255).sub_(1.0);
  const float infinity = std::numeric_limits<float>::infinity();
  return at::cat({halves, halves.add(6e-8), halves.sub(6e-8),
                  at::tensor({-infinity, infinity, std::nanf(""), -0.0f, 1e30f, -1e30f})});
}

TEST(VideoFrames, BytesAreTheComposedForms) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const at::Tensor& pixels : {Corners(), Random({2, 5, 7, 3}), Random({100003})}) {
      const at::Tensor x = pixels.to(dtype);
      const at::Tensor bytes = FramesAsBytes(x);
      EXPECT_EQ(bytes.sizes(), x.sizes());
      EXPECT_TRUE(at::equal(bytes, FramesAsBytesComposed(x))) << c10::toString(dtype);
    }
  }
}

TEST(VideoFrames, BytesAreTheFloatsTo255) {
  const at::Tensor pixels = Random({3, 4, 5, 3});
  EXPECT_TRUE(
      at::equal(FramesAsBytes(pixels), FramesAsFloats(pixels).mul(255.0).round().to(at::kByte)));
  const at::Tensor ends = FramesAsBytes(at::tensor({-1.0f, 0.0f, 1.0f, -3.0f, 3.0f}));
  // 127.5 is a tie, which the even number takes.
  EXPECT_TRUE(at::equal(ends, at::tensor({0, 128, 255, 0, 255}, at::kByte)));
}

TEST(VideoFrames, ViewsAreReadAsTheyLie) {
  const at::Tensor pixels = Random({2, 3, 4, 5}).permute({0, 2, 3, 1});
  EXPECT_TRUE(at::equal(FramesAsBytes(pixels), FramesAsBytes(pixels.contiguous())));
  EXPECT_TRUE(FramesAsBytes(pixels).is_contiguous());
  EXPECT_TRUE(FramesAsFloats(pixels).is_contiguous());
}

TEST(VideoFrames, FloatsAreRoundedInThePixelsDtype) {
  const at::Tensor pixels = Random({1000}).to(at::kBFloat16);
  const at::Tensor floats = FramesAsFloats(pixels);
  EXPECT_EQ(floats.scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(floats, floats.to(at::kBFloat16).to(at::kFloat)));
}

}  // namespace
}  // namespace kino::engine
