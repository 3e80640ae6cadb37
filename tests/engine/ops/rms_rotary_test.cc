#include "engine/ops/rms_rotary.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "tests/support/at_threads.h"

namespace kino::engine {
namespace {

at::Tensor Random(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions());
}

RotaryTable RandomTable(int64_t tokens, int64_t width) {
  const at::Tensor angle = Random({tokens, width / 2}, 5).mul(3);
  return {.cos = angle.cos(), .sin = angle.sin()};
}

TEST(RmsRotaryTest, FusedEqualsComposed) {
  for (const int64_t width : {64, 34, 2}) {
    const at::Tensor x = Random({2, 9, width}, 1);
    const at::Tensor weight = Random({width}, 2).mul(0.1).add(1.0);
    const RotaryTable table = RandomTable(9, width);
    const at::Tensor composed = RmsRotaryComposed(x, weight, 1e-5, table);
    // Two orders of summation of one float32 sum.
    EXPECT_LT((RmsRotary(x.clone(), weight, 1e-5, table) - composed).abs().max().item<float>(),
              2e-6)
        << width;
  }
}

// Tasks of 16384 elements; one of the three goes on from the first sequence to the second. Of so
// many values the largest is larger, and so is its last bit.
TEST(RmsRotaryTest, SeveralTasksEqualComposed) {
  const int64_t width = 64, length = (3 * 16384 / width + 77) / 2;
  const at::Tensor x = Random({2, length, width}, 1);
  const at::Tensor weight = Random({width}, 2).mul(0.1).add(1.0);
  const RotaryTable table = RandomTable(length, width);
  const at::Tensor composed = RmsRotaryComposed(x, weight, 1e-5, table);
  const kino::testing::AtThreads several(3);
  EXPECT_LT((RmsRotary(x.clone(), weight, 1e-5, table) - composed).abs().max().item<float>(), 5e-6);
}

TEST(RmsRotaryTest, NoAngleIsThePlainNorm) {
  const at::Tensor x = Random({1, 4, 16}, 1);
  const at::Tensor weight = Random({16}, 2);
  const RotaryTable still = {.cos = at::ones({4, 8}), .sin = at::zeros({4, 8})};
  const at::Tensor expected = at::rms_norm(x, {16}, weight, 1e-5);
  EXPECT_LT((RmsRotary(x.clone(), weight, 1e-5, still) - expected).abs().max().item<float>(), 2e-6);
}

TEST(RmsRotaryTest, TurnsPairsAndKeepsTheirLength) {
  const at::Tensor x = Random({1, 4, 16}, 1);
  const at::Tensor weight = at::ones({16});
  const at::Tensor out = RmsRotary(x.clone(), weight, 1e-5, RandomTable(4, 16));
  const at::Tensor normed = at::rms_norm(x, {16}, weight, 1e-5);
  const auto lengths = [](const at::Tensor& t) { return t.view({4, 8, 2}).pow(2).sum(2); };
  EXPECT_LT((lengths(out) - lengths(normed)).abs().max().item<float>(), 1e-5);
}

TEST(RmsRotaryTest, ATableOfAnotherShapeIsRefused) {
  const at::Tensor x = Random({1, 4, 16}, 1);
  EXPECT_THROW(RmsRotary(x, at::ones({16}), 1e-5, RandomTable(5, 16)), c10::Error);
  EXPECT_THROW(RmsRotary(x, at::ones({16}), 1e-5, RandomTable(4, 8)), c10::Error);
}

}  // namespace
}  // namespace kino::engine
