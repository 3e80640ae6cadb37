#include "engine/ops/norm_rotary.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <vector>

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

TEST(NormRotaryTest, FusedEqualsComposed) {
  for (const int64_t width : {64, 34, 2}) {
    const at::Tensor x = Random({2, 9, width}, 1);
    const at::Tensor weight = Random({width}, 2).mul(0.1).add(1.0);
    const RotaryTable table = RandomTable(9, width);
    const at::Tensor composed = NormRotaryComposed(x, weight, 1e-5, table);
    // Two orders of summation of one float32 sum.
    EXPECT_LT((NormRotary(x.clone(), weight, 1e-5, table) - composed).abs().max().item<float>(),
              2e-6)
        << width;
  }
}

// Tasks of 16384 elements; one of the three goes on from the first sequence to the second. Of so
// many values the largest is larger, and so is its last bit.
TEST(NormRotaryTest, SeveralTasksEqualComposed) {
  const int64_t width = 64, length = (3 * 16384 / width + 77) / 2;
  const at::Tensor x = Random({2, length, width}, 1);
  const at::Tensor weight = Random({width}, 2).mul(0.1).add(1.0);
  const RotaryTable table = RandomTable(length, width);
  const at::Tensor composed = NormRotaryComposed(x, weight, 1e-5, table);
  const kino::testing::AtThreads several(3);
  EXPECT_LT((NormRotary(x.clone(), weight, 1e-5, table) - composed).abs().max().item<float>(),
            5e-6);
}

// Heads are normed by themselves: the same as each head's numbers given alone.
TEST(NormRotaryTest, AHeadIsNormedByItself) {
  for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const int64_t heads = 3, head = 16, width = heads * head;
    const at::Tensor x = Random({2, 9, width}, 1).to(dtype);
    const at::Tensor weight = Random({head}, 2).mul(0.1).add(1.0).to(dtype);
    const RotaryTable table = RandomTable(9, width);
    std::vector<at::Tensor> alone;
    for (int64_t i = 0; i < heads; ++i) {
      alone.push_back(
          NormRotaryComposed(x.narrow(2, i * head, head).contiguous(), weight, 1e-5,
                             {.cos = table.cos.narrow(1, i * head / 2, head / 2).contiguous(),
                              .sin = table.sin.narrow(1, i * head / 2, head / 2).contiguous()}));
    }
    // bfloat16: a sum in another order may round a value of a few units the other way, once.
    const double tolerance = dtype == at::kFloat ? 2e-6 : 3.2e-2;
    EXPECT_LE(
        (NormRotary(x.clone(), weight, 1e-5, table) - at::cat(alone, 2)).abs().max().item<double>(),
        tolerance)
        << dtype;
  }
}

// The fused bfloat16 rows round where the composed form does: of many values few differ, and those
// by one step.
TEST(NormRotaryTest, BFloat16RoundsAsComposed) {
  for (const bool turns : {true, false}) {
    const at::Tensor x = Random({2, 50, 64}, 1).to(at::kBFloat16);
    const at::Tensor weight = Random({32}, 2).mul(0.1).add(1.0).to(at::kBFloat16);
    const RotaryTable table = turns ? RandomTable(50, 64) : RotaryTable{};
    const at::Tensor composed = NormRotaryComposed(x, weight, 1e-5, table);
    const at::Tensor fused = NormRotary(x.clone(), weight, 1e-5, table);
    EXPECT_EQ(fused.scalar_type(), at::kBFloat16);
    EXPECT_LE((fused != composed).to(at::kFloat).mean().item<float>(), 0.01);
    EXPECT_LE((fused - composed).abs().max().item<double>(), 3.2e-2);
  }
}

TEST(NormRotaryTest, WritesAStretchOfALongerSequence) {
  for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor x = Random({2, 5, 16}, 1).to(dtype);
    const at::Tensor weight = Random({8}, 2).to(dtype);
    const RotaryTable table = RandomTable(5, 16);
    const at::Tensor longer = at::ones({2, 9, 16}, at::TensorOptions().dtype(dtype));
    NormRotaryInto(x, weight, 1e-5, table, longer.narrow(1, 3, 5));
    EXPECT_TRUE(longer.narrow(1, 3, 5).equal(NormRotary(x.clone(), weight, 1e-5, table)));
    EXPECT_TRUE(longer.narrow(1, 0, 3).equal(at::ones_like(longer.narrow(1, 0, 3))));
    EXPECT_TRUE(longer.narrow(1, 8, 1).equal(at::ones_like(longer.narrow(1, 8, 1))));
  }
}

TEST(NormRotaryTest, NoAngleIsThePlainNorm) {
  const at::Tensor x = Random({1, 4, 16}, 1);
  const at::Tensor weight = Random({16}, 2);
  const RotaryTable still = {.cos = at::ones({4, 8}), .sin = at::zeros({4, 8})};
  const at::Tensor expected = at::rms_norm(x, {16}, weight, 1e-5);
  EXPECT_LT((NormRotary(x.clone(), weight, 1e-5, still) - expected).abs().max().item<float>(),
            2e-6);
}

TEST(NormRotaryTest, TurnsPairsAndKeepsTheirLength) {
  const at::Tensor x = Random({1, 4, 16}, 1);
  const at::Tensor weight = at::ones({16});
  const at::Tensor out = NormRotary(x.clone(), weight, 1e-5, RandomTable(4, 16));
  const at::Tensor normed = at::rms_norm(x, {16}, weight, 1e-5);
  const auto lengths = [](const at::Tensor& t) { return t.view({4, 8, 2}).pow(2).sum(2); };
  EXPECT_LT((lengths(out) - lengths(normed)).abs().max().item<float>(), 1e-5);
}

// A layer norm of each head; the tokens in front are not turned, and the heads share their angles.
TEST(NormRotaryTest, LayerNormOfHeadsTurnsTheTokensBehind) {
  for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const int64_t heads = 3, head = 16, first = 4, length = 9;
    const at::Tensor x = Random({2, length, heads * head}, 1).to(dtype);
    const at::Tensor weight = Random({head}, 2).mul(0.1).add(1.0).to(dtype),
                     bias = Random({head}, 3).to(dtype);
    RotaryTable table = RandomTable(length - first, head);
    table.first = first;
    const at::Tensor fused = NormRotary(x.clone(), weight, 1e-6, table, bias);
    const at::Tensor normed =
        at::layer_norm(x.unflatten(2, {heads, head}), {head}, weight, bias, 1e-6).flatten(2);
    const double tolerance = dtype == at::kFloat ? 3e-6 : 3.2e-2;
    EXPECT_LE((fused - normed).narrow(1, 0, first).abs().max().item<double>(), tolerance) << dtype;
    const RotaryTable wide = {.cos = table.cos.repeat({1, heads}),
                              .sin = table.sin.repeat({1, heads})};
    const at::Tensor behind = NormRotaryComposed(x.narrow(1, first, length - first).contiguous(),
                                                 weight, 1e-6, wide, bias);
    EXPECT_LE((fused.narrow(1, first, length - first) - behind).abs().max().item<double>(),
              tolerance)
        << dtype;
    EXPECT_GT((fused - normed).narrow(1, first, 5).abs().max().item<double>(), 0.1) << dtype;
  }
}

TEST(NormRotaryTest, ATableOfAnotherShapeIsRefused) {
  const at::Tensor x = Random({1, 4, 16}, 1);
  EXPECT_THROW(NormRotary(x, at::ones({16}), 1e-5, RandomTable(5, 16)), c10::Error);
  EXPECT_THROW(NormRotary(x, at::ones({16}), 1e-5, RandomTable(4, 8)), c10::Error);
  EXPECT_THROW(NormRotary(x, at::ones({5}), 1e-5, {}), c10::Error);
  EXPECT_THROW(NormRotary(x, at::ones({16}), 1e-5, {}, at::ones({8})), c10::Error);
}

}  // namespace
}  // namespace kino::engine
