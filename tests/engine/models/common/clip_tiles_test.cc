#include "engine/models/common/clip_tiles.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace kino::engine {
namespace {

using ::testing::ElementsAre;

TEST(TileStretchesTest, WholeStridesAreDiffusersTiles) {
  // 1280 pixels of Allegro: 160 latents, tiles of 40, 30 apart.
  const std::vector<TileStretch> tiles = TileStretches(160, 40, 30);
  ASSERT_EQ(tiles.size(), 5u);
  EXPECT_EQ(tiles[0],
            (TileStretch{.begin = 0, .end = 40, .from = 0, .fade_in = 0, .fade_out = 10}));
  EXPECT_EQ(tiles[3],
            (TileStretch{.begin = 90, .end = 130, .from = 90, .fade_in = 10, .fade_out = 10}));
  EXPECT_EQ(tiles[4],
            (TileStretch{.begin = 120, .end = 160, .from = 120, .fade_in = 10, .fade_out = 0}));
}

TEST(TileStretchesTest, ARestHasATileThatEndsWithTheAxis) {
  EXPECT_THAT(
      TileStretches(8, 6, 4),
      ElementsAre(TileStretch{.begin = 0, .end = 6, .from = 0, .fade_in = 0, .fade_out = 2},
                  TileStretch{.begin = 2, .end = 8, .from = 4, .fade_in = 2, .fade_out = 0}));
}

TEST(TileStretchesTest, AnAxisShorterThanATileIsOne) {
  EXPECT_THAT(
      TileStretches(3, 6, 4),
      ElementsAre(TileStretch{.begin = 0, .end = 3, .from = 0, .fade_in = 0, .fade_out = 0}));
}

// Tiles of 6 x 4 x 8 latents, 4, 3 and 6 apart; a latent is 2 frames of 3 x 3 pixels.
constexpr VaeTileSizes kSizes = {.min_height = 12,
                                 .min_width = 24,
                                 .stride_height = 9,
                                 .stride_width = 18,
                                 .min_num_frames = 12,
                                 .stride_num_frames = 8,
                                 .unit = 3,
                                 .frames_unit = 2};

// Every latent's number as 2 frames of 3 x 3 pixels: what a decoder without a view of its
// surroundings gives.
at::Tensor Repeated(const at::Tensor& latents) {
  return latents[0][0]
      .repeat_interleave(2, 0)
      .repeat_interleave(3, 1)
      .repeat_interleave(3, 2)
      .unsqueeze(3)
      .repeat({1, 1, 1, 3});
}

TEST(ClipTilesTest, TilesOfADecoderThatIsLocalGiveWhatOneTileGives) {
  for (const auto& [frames, height, width] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
           {1, 1, 1}, {6, 4, 8}, {7, 5, 9}, {14, 10, 20}, {17, 6, 15}}) {
    SCOPED_TRACE(testing::Message() << frames << " x " << height << " x " << width);
    const at::Tensor latents =
        at::arange(frames * height * width, at::kFloat).view({1, 1, frames, height, width});
    const at::Tensor whole = Repeated(latents);
    for (const int64_t wanted : {2 * frames, 2 * frames - 1}) {
      const auto stream = DecodeInClipTiles(
          [](const at::Tensor& tile, const RunContext&) { return Repeated(tile); }, latents, kSizes,
          wanted);
      std::vector<at::Tensor> parts;
      while (!stream->done()) {
        at::Tensor part = stream->NextFrames({});
        if (part.defined()) parts.push_back(part);
      }
      EXPECT_FALSE(stream->NextFrames({}).defined());
      const at::Tensor got = at::cat(parts);
      ASSERT_EQ(got.sizes(), whole.narrow(0, 0, wanted).sizes());
      // Ramps add up to 1 within a rounding of float32.
      EXPECT_LE((got - whole.narrow(0, 0, wanted)).abs().max().item<float>(),
                1e-6f * latents.max().item<float>());
    }
  }
}

TEST(ClipTilesTest, FramesLeaveWithTheLastTileThatAddsToThem) {
  const at::Tensor latents = at::ones({1, 1, 14, 4, 14});
  const auto stream =
      DecodeInClipTiles([](const at::Tensor& tile, const RunContext&) { return Repeated(tile); },
                        latents, kSizes, 28);
  std::vector<int64_t> given;
  while (!stream->done()) {
    const at::Tensor part = stream->NextFrames({});
    given.push_back(part.defined() ? part.size(0) : 0);
  }
  // Two tiles side by side, three in time.
  EXPECT_THAT(given, ElementsAre(0, 8, 0, 8, 0, 12));
}

}  // namespace
}  // namespace kino::engine
