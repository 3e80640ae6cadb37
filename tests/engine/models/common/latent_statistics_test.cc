#include "engine/models/common/latent_statistics.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <vector>

namespace kino::engine {
namespace {

at::Tensor Line(std::vector<double> values) {
  return at::tensor(values, at::kFloat).view({1, 1, -1, 1, 1});
}

TEST(FuseOverlapTest, GoesOverAlongAStraightLine) {
  const at::Tensor first = Line({1, 2, 8, 8, 8}), second = Line({0, 4, 16, 5});
  EXPECT_TRUE(FuseOverlap(first, second, 3).allclose(Line({1, 2, 6, 6, 14, 5})));
  EXPECT_TRUE(
      FuseOverlap(first, second, 4)
          .allclose(Line({1, 2 * 0.8, 8 * 0.6 + 4 * 0.4, 8 * 0.4 + 16 * 0.6, 8 * 0.2 + 5 * 0.8})));
}

TEST(FuseOverlapTest, UpToOneFrameIsJoined) {
  for (const int64_t overlap : {0, 1})
    EXPECT_TRUE(FuseOverlap(Line({1, 2}), Line({3, 4}), overlap).equal(Line({1, 2, 3, 4})));
}

TEST(LikenStatisticsTest, BringsEachChannelNearer) {
  const at::Tensor latents = at::cat({Line({1, 3}), Line({10, 10})}, 1);
  const at::Tensor reference = at::cat({Line({0, 20}), Line({4, 6})}, 1);
  EXPECT_TRUE(LikenStatistics(latents, reference, 1)
                  .allclose(at::cat({Line({0, 20}), Line({5, 5})}, 1), 1e-5, 1e-4));
  EXPECT_TRUE(
      LikenStatistics(latents, reference, 0.25)
          .allclose(at::cat({Line({4 - 3.25, 4 + 3.25}), Line({8.75, 8.75})}, 1), 1e-5, 1e-4));
}

}  // namespace
}  // namespace kino::engine
