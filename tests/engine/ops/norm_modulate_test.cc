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

// float32: two orders of summation. bfloat16: such a sum may round a value the other way, by a step
// at each of three roundings of values up to 16. float16 has no fused form.
struct Case {
  NormKind kind;
  Rounding rounding;
  c10::ScalarType dtype;
  int64_t width;
  double tolerance;
};

class NormModulateTest : public ::testing::TestWithParam<Case> {};

TEST_P(NormModulateTest, FusedEqualsComposed) {
  const auto& [kind, rounding, dtype, width, tolerance] = GetParam();
  const NormStyle style = {.kind = kind, .eps = 1e-6, .rounding = rounding};
  const TokenSpans spans = {{0, 3, 1}, {3, 3, 0}, {3, 7, 0}};
  const at::Tensor x = Random({2, 7, width}, 1).mul(3).add(0.5).to(dtype);
  const at::Tensor shift = Random({2, width}, 2).to(dtype);
  const at::Tensor scale = Random({2, width}, 3).mul(0.2).to(dtype);
  const at::Tensor fused = NormModulate(x, style, shift, scale, spans);
  const at::Tensor composed = NormModulateComposed(x, style, shift, scale, spans);
  EXPECT_EQ(fused.scalar_type(), dtype);
  EXPECT_LT((fused - composed).abs().max().item<double>(), tolerance);
  // The spans matter: tokens of the other row differ.
  const at::Tensor other = NormModulateComposed(x, style, shift, scale, {{0, 7, 0}});
  EXPECT_GT((composed - other).narrow(1, 0, 3).abs().max().item<double>(), 0.1);
  EXPECT_EQ((composed - other).narrow(1, 3, 4).abs().max().item<double>(), 0.0);
}

// Tasks of 32768 elements; a span of three and a bit. Of so many values the largest is larger, and
// so is its last bit.
TEST_P(NormModulateTest, SeveralTasksEqualComposed) {
  const auto& [kind, rounding, dtype, width, tolerance] = GetParam();
  const NormStyle style = {.kind = kind, .eps = 1e-6, .rounding = rounding};
  const int64_t length = 3 * 32768 / width + 77;
  const TokenSpans spans = {{0, 5, 1}, {5, length, 0}};
  const at::Tensor x = Random({2, length, width}, 1).mul(3).add(0.5).to(dtype);
  const at::Tensor shift = Random({2, width}, 2).to(dtype);
  const at::Tensor scale = Random({2, width}, 3).mul(0.2).to(dtype);
  const at::Tensor composed = NormModulateComposed(x, style, shift, scale, spans);
  const kino::testing::AtThreads several(3);
  const at::Tensor fused = NormModulate(x, style, shift, scale, spans);
  EXPECT_LT((fused - composed).abs().max().item<double>(), tolerance * 2);
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, NormModulateTest,
    ::testing::Values(Case{NormKind::kRms, Rounding::kEachStep, at::kFloat, 64, 2e-6},
                      Case{NormKind::kRms, Rounding::kOnce, at::kFloat, 37, 2e-6},
                      Case{NormKind::kLayer, Rounding::kEachStep, at::kFloat, 64, 5e-6},
                      Case{NormKind::kLayer, Rounding::kEachStep, at::kFloat, 37, 5e-6},
                      Case{NormKind::kRms, Rounding::kEachStep, at::kBFloat16, 64, 0.13},
                      Case{NormKind::kLayer, Rounding::kEachStep, at::kBFloat16, 37, 0.13},
                      Case{NormKind::kRms, Rounding::kOnce, at::kBFloat16, 64, 0.07},
                      Case{NormKind::kLayer, Rounding::kEachStep, at::kHalf, 64, 1e-9}));

// Where bfloat16 is rounded: of many values few differ from the composed form's.
TEST(NormModulateTest, BFloat16RoundsAsComposed) {
  const at::Tensor x = Random({2, 60, 64}, 1).mul(3).to(at::kBFloat16);
  const at::Tensor table = Random({2, 1, 64}, 2).mul(0.5).to(at::kBFloat16);
  for (const NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
    for (const Rounding rounding : {Rounding::kEachStep, Rounding::kOnce}) {
      for (const at::Tensor& shift : {table, at::Tensor()}) {
        const NormStyle style = {.kind = kind, .eps = 1e-6, .rounding = rounding};
        const at::Tensor fused = NormModulate(x, style, shift, table, {{0, 60, 0}});
        const at::Tensor composed = NormModulateComposed(x, style, shift, table, {{0, 60, 0}});
        EXPECT_LE((fused != composed).to(at::kFloat).mean().item<float>(), 0.01)
            << static_cast<int>(kind) << ", " << static_cast<int>(rounding);
      }
    }
  }
}

// A norm with parameters of its own. bfloat16: of many values few are rounded the other way.
TEST(NormModulateTest, AffineNormEqualsComposed) {
  const NormStyle style = {.kind = NormKind::kLayer, .eps = 1e-5};
  const TokenSpans spans = {{0, 3, 1}, {3, 700, 0}};
  for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor x = Random({2, 700, 48}, 1).mul(3).to(dtype);
    const at::Tensor shift = Random({2, 48}, 2).to(dtype), scale = Random({2, 48}, 3).to(dtype);
    const NormAffine affine = {.weight = Random({48}, 4).to(dtype),
                               .bias = Random({48}, 5).to(dtype)};
    const at::Tensor composed = NormModulateComposed(x, style, shift, scale, spans, affine);
    const kino::testing::AtThreads several(3);
    const at::Tensor fused = NormModulate(x, style, shift, scale, spans, affine);
    EXPECT_LE((fused - composed).abs().max().item<double>(), dtype == at::kFloat ? 1e-5 : 0.26);
    EXPECT_LE((fused != composed).to(at::kFloat).mean().item<float>(),
              dtype == at::kFloat ? 1 : 0.01);
    const at::Tensor plain = NormModulateComposed(x, style, shift, scale, spans);
    EXPECT_GT((plain - composed).abs().max().item<double>(), 0.1);
  }
  const at::Tensor x = Random({1, 4, 8}, 1), table = Random({1, 8}, 2);
  EXPECT_THROW(
      NormModulate(x, style, {}, table, {{0, 4, 0}}, {.weight = table[0], .bias = table[0]}),
      c10::Error);
  EXPECT_THROW(
      NormModulate(x, style, table, table, {{0, 4, 0}}, {.weight = Random({4}, 1), .bias = {}}),
      c10::Error);
}

// A table for each row of the batch, and no shift.
TEST(NormModulateTest, RowsOfTheBatchHaveTheirOwnTable) {
  const TokenSpans spans = {{0, 2, 1}, {2, 5, 0}};
  for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor x = Random({3, 5, 24}, 1).to(dtype);
    const at::Tensor scale = Random({3, 2, 24}, 2).to(dtype),
                     gate = Random({3, 2, 24}, 3).to(dtype);
    const NormStyle style = {.kind = NormKind::kRms, .eps = 1e-6, .rounding = Rounding::kOnce};
    const at::Tensor all = NormModulate(x, style, {}, scale, spans);
    at::Tensor gated = x.clone(), added = x.clone(), y = all.clone();
    AddNormGated(gated, all, 1e-6, gate, spans);
    AddGated(added, y, gate, spans);
    for (int64_t row = 0; row < 3; ++row) {
      const at::Tensor alone = x.narrow(0, row, 1).contiguous();
      const at::Tensor normed = NormModulateComposed(alone, style, {}, scale[row], spans);
      // A bfloat16 value of up to 16 rounded the other way.
      const double tolerance = dtype == at::kFloat ? 2e-6 : 0.13;
      EXPECT_LE((all.narrow(0, row, 1) - normed).abs().max().item<double>(), tolerance);
      at::Tensor expected = alone.clone();
      AddNormGatedComposed(expected, all.narrow(0, row, 1).contiguous(), 1e-6, gate[row], spans);
      EXPECT_LE((gated.narrow(0, row, 1) - expected).abs().max().item<double>(), tolerance);
      expected = alone.clone();
      at::Tensor consumed = all.narrow(0, row, 1).clone();
      AddGatedComposed(expected, consumed, gate[row], spans);
      EXPECT_LE((added.narrow(0, row, 1) - expected).abs().max().item<double>(), 1e-6);
    }
  }
}

TEST(AddNormGatedTest, FusedEqualsComposed) {
  const TokenSpans spans = {{0, 3, 1}, {3, 700, 0}};
  for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = Random({2, 700, 96}, 1).to(dtype), y = Random({2, 700, 96}, 2).to(dtype);
    const at::Tensor gate = Random({2, 96}, 3).to(dtype);
    at::Tensor composed = x.clone(), fused = x.clone();
    AddNormGatedComposed(composed, y, 1e-6, gate, spans);
    const kino::testing::AtThreads several(3);
    AddNormGated(fused, y, 1e-6, gate, spans);
    EXPECT_LE((fused != composed).to(at::kFloat).mean().item<float>(),
              dtype == at::kFloat ? 1 : 0.01);
    EXPECT_LE((fused - composed).abs().max().item<double>(), dtype == at::kFloat ? 5e-6 : 0.13);
  }
}

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
    EXPECT_THROW(NormModulate(x, {}, table, table, spans), c10::Error);
  }
}

TEST(NormModulateTest, TablesOfAnotherShapeAreRefused) {
  const at::Tensor x = Random({2, 4, 8}, 1);
  EXPECT_THROW(NormModulate(x, {}, {}, Random({1, 7}, 2), {{0, 4, 0}}), c10::Error);
  EXPECT_THROW(NormModulate(x, {}, {}, Random({3, 1, 8}, 2), {{0, 4, 0}}), c10::Error);
  EXPECT_THROW(NormModulate(x, {}, Random({2, 8}, 3), Random({1, 8}, 2), {{0, 4, 0}}), c10::Error);
}

}  // namespace
}  // namespace kino::engine
