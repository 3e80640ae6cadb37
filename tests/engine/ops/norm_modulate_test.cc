#include "engine/ops/norm_modulate.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "tests/support/at_threads.h"

namespace kino::engine {
namespace {

at::Tensor Random(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions());
}

// float32: two orders of summation. Half types: their own rounding, at values of a few units.
struct Case {
  NormKind kind;
  c10::ScalarType dtype;
  int64_t width;
  double tolerance;
};

class NormModulateTest : public ::testing::TestWithParam<Case> {};

TEST_P(NormModulateTest, FusedEqualsComposed) {
  const auto& [kind, dtype, width, tolerance] = GetParam();
  const TokenSpans spans = {{0, 3, 1}, {3, 3, 0}, {3, 7, 0}};
  const at::Tensor x = Random({2, 7, width}, 1).mul(3).add(0.5).to(dtype);
  const at::Tensor shift = Random({2, width}, 2).to(dtype);
  const at::Tensor scale = Random({2, width}, 3).mul(0.2).to(dtype);
  const at::Tensor fused = NormModulate(x, kind, 1e-6, shift, scale, spans);
  const at::Tensor composed = NormModulateComposed(x, kind, 1e-6, shift, scale, spans);
  EXPECT_EQ(fused.scalar_type(), dtype);
  EXPECT_LT((fused - composed).abs().max().item<double>(), tolerance);
  // The spans matter: tokens of the other row differ.
  const at::Tensor other = NormModulateComposed(x, kind, 1e-6, shift, scale, {{0, 7, 0}});
  EXPECT_GT((composed - other).narrow(1, 0, 3).abs().max().item<double>(), 0.1);
  EXPECT_EQ((composed - other).narrow(1, 3, 4).abs().max().item<double>(), 0.0);
}

// Tasks of 32768 elements; a span of three and a bit. Of so many values the largest is larger, and
// so is its last bit.
TEST_P(NormModulateTest, SeveralTasksEqualComposed) {
  const auto& [kind, dtype, width, tolerance] = GetParam();
  const int64_t length = 3 * 32768 / width + 77;
  const TokenSpans spans = {{0, 5, 1}, {5, length, 0}};
  const at::Tensor x = Random({2, length, width}, 1).mul(3).add(0.5).to(dtype);
  const at::Tensor shift = Random({2, width}, 2).to(dtype);
  const at::Tensor scale = Random({2, width}, 3).mul(0.2).to(dtype);
  const at::Tensor composed = NormModulateComposed(x, kind, 1e-6, shift, scale, spans);
  const kino::testing::AtThreads several(3);
  const at::Tensor fused = NormModulate(x, kind, 1e-6, shift, scale, spans);
  EXPECT_LT((fused - composed).abs().max().item<double>(), tolerance * 2);
}

INSTANTIATE_TEST_SUITE_P(Kinds, NormModulateTest,
                         ::testing::Values(Case{NormKind::kRms, at::kFloat, 64, 2e-6},
                                           Case{NormKind::kRms, at::kFloat, 37, 2e-6},
                                           Case{NormKind::kLayer, at::kFloat, 64, 5e-6},
                                           Case{NormKind::kLayer, at::kFloat, 37, 5e-6},
                                           Case{NormKind::kRms, at::kBFloat16, 64, 1e-9},
                                           Case{NormKind::kLayer, at::kHalf, 64, 1e-9}));

TEST(AddGatedTest, AddsGatedTokensBySpan) {
  for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    at::Tensor x = Random({2, 5, 33}, 1).to(dtype);
    at::Tensor y = Random({2, 5, 33}, 2).to(dtype);
    const at::Tensor gate = Random({2, 33}, 3).to(dtype);
    at::Tensor expected = x.clone();
    expected.narrow(1, 0, 2).add_(y.narrow(1, 0, 2) * gate[1]);
    expected.narrow(1, 2, 3).add_(y.narrow(1, 2, 3) * gate[0]);
    AddGated(x, y, gate, {{0, 2, 1}, {2, 5, 0}});
    EXPECT_LT((x - expected).abs().max().item<double>(), 1e-6);
  }
}

// Tasks of 32768 elements, as above.
TEST(AddGatedTest, SeveralTasksEqualOne) {
  const int64_t width = 96, length = 3 * 32768 / width + 77;
  at::Tensor x = Random({2, length, width}, 1), y = Random({2, length, width}, 2);
  const at::Tensor gate = Random({2, width}, 3);
  at::Tensor expected = x.clone();
  expected.narrow(1, 0, 5).add_(y.narrow(1, 0, 5) * gate[1]);
  expected.narrow(1, 5, length - 5).add_(y.narrow(1, 5, length - 5) * gate[0]);
  const kino::testing::AtThreads several(3);
  AddGated(x, y, gate, {{0, 5, 1}, {5, length, 0}});
  EXPECT_LT((x - expected).abs().max().item<double>(), 1e-6);
}

TEST(NormModulateTest, SpansThatDoNotCoverTheSequenceAreRefused) {
  const at::Tensor x = Random({1, 4, 8}, 1);
  const at::Tensor table = Random({1, 8}, 2);
  for (const TokenSpans& spans :
       {TokenSpans{{0, 3, 0}}, TokenSpans{{1, 4, 0}}, TokenSpans{{0, 4, 1}}, TokenSpans{}}) {
    EXPECT_THROW(NormModulate(x, NormKind::kRms, 1e-6, table, table, spans), c10::Error);
  }
}

}  // namespace
}  // namespace kino::engine
