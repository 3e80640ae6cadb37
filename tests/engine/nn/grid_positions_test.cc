#include "engine/nn/grid_positions.h"

#include <algorithm>

#include "tests/engine/nn/layer_weights.h"

namespace kino::engine {
namespace {

TEST(GridPositionsTest, TheLastOfEachAxisIsRepeatedToMultiples) {
  const at::Tensor x = Random({1, 2, 3, 2, 5}, 1);
  const at::Tensor padded = RepeatToMultiples(x, 2, 4);
  ASSERT_EQ(padded.sizes(), (at::IntArrayRef{1, 2, 4, 4, 8}));
  for (int64_t t = 0; t < 4; ++t) {
    for (int64_t h = 0; h < 4; ++h) {
      for (int64_t w = 0; w < 8; ++w) {
        const at::Tensor from = x.select(2, std::min<int64_t>(t, 2))
                                    .select(2, std::min<int64_t>(h, 1))
                                    .select(2, std::min<int64_t>(w, 4));
        EXPECT_TRUE(padded.select(2, t).select(2, h).select(2, w).equal(from));
      }
    }
  }
  EXPECT_TRUE(RepeatToMultiples(x, 3, 1).is_same(x));
}

TEST(GridPositionsTest, AMeanIsOfTheCubesOfARepeatedGrid) {
  constexpr int64_t kFrames = 3, kHeight = 4, kWidth = 5, kNumbers = 2, kSide = 2;
  const at::Tensor table = Random({kFrames * kHeight * kWidth, kNumbers}, 2);
  const at::Tensor grid = table.view({kFrames, kHeight, kWidth, kNumbers});
  const at::Tensor means = MeanOverCubes(table, kHeight, kWidth, kSide);
  ASSERT_EQ(means.sizes(), (at::IntArrayRef{2 * 2 * 3, kNumbers}));
  for (int64_t i = 0; i < means.size(0); ++i) {
    const int64_t t = i / 6 * kSide, h = i / 3 % 2 * kSide, w = i % 3 * kSide;
    at::Tensor sum = means[i] * 0;
    for (int64_t j = 0; j < 8; ++j) {
      sum = sum + grid[std::min(t + j / 4, kFrames - 1)][std::min(h + j / 2 % 2, kHeight - 1)]
                      [std::min(w + j % 2, kWidth - 1)];
    }
    EXPECT_LT(MaxError(means[i], sum / 8), 1e-6);
  }
}

}  // namespace
}  // namespace kino::engine
