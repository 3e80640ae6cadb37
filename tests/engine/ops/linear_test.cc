#include "engine/ops/linear.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

namespace kino::engine {
namespace {

at::Tensor Random(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions());
}

// Against double, within the bound of a sum of `in` products in floats, in any order.
void ExpectLinear(const at::Tensor& got, const at::Tensor& x, const at::Tensor& weight,
                  const at::Tensor& bias, const std::string& what) {
  constexpr double kHalfStep = 6e-8;
  const at::Tensor x64 = x.to(at::kDouble), weight64 = weight.to(at::kDouble),
                   bias64 = bias.defined() ? bias.to(at::kDouble) : bias;
  const at::Tensor expected = at::linear(x64, weight64, bias64);
  const at::Tensor sizes =
      at::linear(x64.abs(), weight64.abs(), bias.defined() ? bias64.abs() : bias);
  ASSERT_EQ(got.sizes(), expected.sizes()) << what;
  const double terms = static_cast<double>(weight.size(1)) + 2;
  const at::Tensor excess = (got.to(at::kDouble) - expected).abs() - sizes * (kHalfStep * terms);
  EXPECT_LE(excess.max().item<double>(), 0) << what;
}

TEST(Linear, IsTheProductForAnyShape) {
  for (const auto& [rows, in, out] : {std::tuple<int64_t, int64_t, int64_t>{1, 64, 8},
                                      {2, 37, 6},
                                      {33, 100, 77},
                                      {768, 96, 384},
                                      {5, 1024, 64},
                                      {64, 2500, 33},
                                      {1, 1, 1}}) {
    const at::Tensor x = Random({1, rows, in}, 1), weight = Random({out, in}, 2),
                     bias = Random({out}, 3);
    const std::string what = std::to_string(rows) + "x" + std::to_string(in);
    ExpectLinear(Linear(x, weight, bias), x, weight, bias, what);
    ExpectLinear(Linear(x, weight, {}), x, weight, {}, what + " without bias");
  }
}

TEST(Linear, ViewsAndOtherRanks) {
  const at::Tensor weight = Random({6, 8}, 2), bias = Random({6}, 3);
  for (const at::Tensor& x : {Random({8}, 1), Random({3, 8}, 1), Random({2, 3, 4, 8}, 1),
                              Random({2, 5, 16}, 1).narrow(2, 4, 8), Random({8, 5}, 1).t(),
                              Random({1, 8}, 1).expand({4, 8})}) {
    ExpectLinear(Linear(x, weight, bias), x, weight, bias, std::to_string(x.dim()));
  }
  const at::Tensor turned = Random({8, 6}, 4).t();
  const at::Tensor x = Random({3, 8}, 1);
  ExpectLinear(Linear(x, turned, {}), x, turned, {}, "a matrix of columns");
  EXPECT_EQ(Linear(at::empty({0, 8}), weight, bias).sizes(), at::IntArrayRef({0, 6}));
}

// A matrix in a mapped file may begin at any multiple of 4 bytes, in a slot at one of 256.
TEST(Linear, BitsDoNotDependOnWhereTheMatrixIs) {
  for (const int64_t rows : {1, 2, 40}) {
    const at::Tensor x = Random({rows, 96}, 1), weight = Random({50, 96}, 2);
    const at::Tensor expected = Linear(x, weight, {});
    for (const int64_t offset : {1, 2, 3, 5}) {
      const at::Tensor moved = at::empty({50 * 96 + offset}).narrow(0, offset, 50 * 96);
      moved.copy_(weight.flatten());
      EXPECT_TRUE(at::equal(Linear(x, moved.view({50, 96}), {}), expected))
          << rows << " rows, " << offset << " floats on";
    }
  }
}

}  // namespace
}  // namespace kino::engine
