#include "engine/text/t5_encoder.h"

#include <ATen/ops/clamp.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isinf.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace kino::engine {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// transformers 5.23, T5Block.forward, with the branch on the host that it had before.
at::Tensor Expected(const at::Tensor& hidden) {
  double limit = 65504;
  if (at::isinf(hidden).any().item<bool>()) limit -= 1000;
  return at::clamp(hidden, -limit, limit);
}

TEST(T5EncoderTest, HalfIsClampedAsTransformersClampsIt) {
  const std::vector<std::vector<float>> cases = {{0, 1, -2.5f, 65504, -65504},
                                                 {0, 1, kInfinity, 65504, -65504},
                                                 {-kInfinity, 64500, 64512, 64544, -64544},
                                                 {kInfinity, -kInfinity, 0, 3, 65000},
                                                 {65504, 64000, -64000, 65472, 7}};
  for (const std::vector<float>& values : cases) {
    const at::Tensor hidden = at::tensor(values).to(at::kHalf);
    const at::Tensor expected = Expected(hidden);
    EXPECT_TRUE(at::equal(ClampHalf(hidden.clone()), expected)) << hidden;
    EXPECT_FALSE(at::isinf(expected).any().item<bool>());
  }
  const at::Tensor unclamped = at::tensor(std::vector<float>{kInfinity, 1e30f});
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor other = unclamped.to(dtype);
    EXPECT_TRUE(at::equal(ClampHalf(other.clone()), other));
  }
}

}  // namespace
}  // namespace kino::engine
