#include "engine/nn/modulation.h"

#include "tests/engine/nn/layer_weights.h"

namespace kino::engine {
namespace {

constexpr int64_t kSteps = 3, kRows = 2, kParts = 6, kWidth = 4;

TEST(ModulationTest, PartsAreStretchesOfTheWidth) {
  const at::Tensor made = Random({kSteps, kRows, kParts * kWidth}, 1), parts = ByPart(made, kParts);
  ASSERT_EQ(parts.sizes(), (at::IntArrayRef{kSteps, kParts, kRows, kWidth}));
  for (int64_t part = 0; part < kParts; ++part)
    EXPECT_TRUE(parts.select(1, part).equal(made.narrow(2, part * kWidth, kWidth)));
}

TEST(ModulationTest, WhatIsApartStandsBehindEachStepsOwn) {
  const at::Tensor modulation = Random({kSteps + 1, kParts, kRows, kWidth}, 2);
  const at::Tensor plain = OfStep(modulation, 1);
  ASSERT_EQ(plain.sizes(), (at::IntArrayRef{kParts, kRows, 1, kWidth}));
  EXPECT_TRUE(plain.squeeze(2).equal(modulation[1]));
  const at::Tensor both = OfStep(modulation, 1, /*has_apart=*/true);
  ASSERT_EQ(both.sizes(), (at::IntArrayRef{kParts, kRows, 2, kWidth}));
  EXPECT_TRUE(both.select(2, 0).equal(modulation[1]));
  EXPECT_TRUE(both.select(2, 1).equal(modulation[kSteps]));
}

}  // namespace
}  // namespace kino::engine
