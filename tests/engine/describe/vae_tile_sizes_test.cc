// Tiles that overlap by a part of their length, against what diffusers 0.42.1
// autoencoder_kl_cogvideox.py (enable_tiling, tiled_encode, tiled_decode) makes of the same
// numbers.
#include "engine/describe/vae_tile_sizes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "engine/describe/conditions.h"

namespace kino::engine {
namespace {

using ::testing::HasSubstr;

constexpr VaeTileSizes kDefaults = {.min_height = 240,
                                    .min_width = 360,
                                    .unit = 16,
                                    .overlap_height = 1.0 / 6,
                                    .overlap_width = 1.0 / 5};

TEST(OverlappingTilesTest, TheClassesOwnFitTogether) {
  const OverlappingTiles tiles(kDefaults, {});
  const TileGrid decode = tiles.DecodeGrid(8);
  EXPECT_EQ(decode.stride_height, 200);
  EXPECT_EQ(decode.stride_width, 288);
  EXPECT_EQ(decode.next_row(), 200);
  EXPECT_EQ(decode.next_column(), 288);
  EXPECT_TRUE(CheckEncodeTiles(480, 720, tiles.PixelGrid(), tiles.LatentGrid(8), 8).ok());
  EXPECT_TRUE(CheckEncodeTiles(768, 1360, tiles.PixelGrid(), tiles.LatentGrid(8), 8).ok());
}

TEST(OverlappingTilesTest, StepAndStrideAreRoundedEachByItself) {
  VaeTiling request;
  request.tile_sample_min_height = 64;
  request.tile_sample_min_width = 40;
  const OverlappingTiles tiles(kDefaults, request);
  const TileGrid decode = tiles.DecodeGrid(8);
  // int(8 * (1 - 1 / 6)) = 6 latents, and 64 - int(64 / 6) = 54 pixels.
  EXPECT_EQ(decode.next_row(), 48);
  EXPECT_EQ(decode.stride_height, 54);
  EXPECT_EQ(decode.next_column(), 32);
  EXPECT_EQ(decode.stride_width, 32);
  // Tiles begin 53 pixels apart, and 7 latents of each are kept: three of them are 160 pixels but
  // for one, of which nothing is left to encode.
  EXPECT_TRUE(CheckEncodeTiles(96, 96, tiles.PixelGrid(), tiles.LatentGrid(8), 8).ok());
  const absl::Status status = CheckEncodeTiles(160, 96, tiles.PixelGrid(), tiles.LatentGrid(8), 8);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("expected 20x12"));
  // A side that fits into one tile does not answer for the other.
  EXPECT_FALSE(CheckEncodeTiles(160, 40, tiles.PixelGrid(), tiles.LatentGrid(8), 8).ok());
  EXPECT_TRUE(CheckEncodeTiles(64, 40, tiles.PixelGrid(), tiles.LatentGrid(8), 8).ok());
}

TEST(OverlappingTilesTest, AStrideThatIsGivenCounts) {
  VaeTiling request;
  request.tile_sample_min_height = 256;
  request.tile_sample_stride_height = 192;
  const OverlappingTiles tiles(kDefaults, request);
  EXPECT_EQ(tiles.DecodeGrid(8).next_row(), 192);
  EXPECT_EQ(tiles.DecodeGrid(8).stride_height, 192);
  EXPECT_EQ(tiles.LatentGrid(8).stride_height, 24);
}

TEST(VaeTileSizesTest, AStrideThatIsLeftOpenFollowsTheTile) {
  VaeTiling request;
  request.tile_sample_min_height = 48;
  EXPECT_EQ(kDefaults.With(request).stride_height, 40);
  EXPECT_EQ(kDefaults.With(request).stride_width, 288);
}

TEST(VaeTileSizesTest, TilesInTimeAreTheRequestsThenTheClasss) {
  VaeTileSizes sizes = {.min_num_frames = 16, .stride_num_frames = 12};
  EXPECT_FALSE(sizes.InTime(std::nullopt).has_value());
  EXPECT_FALSE(sizes.InTime(VaeTiling()).has_value());
  VaeTiling request;
  request.framewise = true;
  request.tile_sample_stride_num_frames = 8;
  ASSERT_TRUE(sizes.InTime(request).has_value());
  EXPECT_EQ(sizes.InTime(request)->frames, 16);
  EXPECT_EQ(sizes.InTime(request)->stride, 8);
  sizes.framewise = true;
  EXPECT_TRUE(sizes.InTime(std::nullopt).has_value());
  EXPECT_TRUE(sizes.InTime(VaeTiling()).has_value());
  request.framewise = false;
  EXPECT_FALSE(sizes.InTime(request).has_value());
}

// Shapes that diffusers' autoencoder_kl_hunyuan_video.py gives for the same numbers.
TEST(CheckEncodeTilesTest, PartsOfLatentsCountWhereTheEncoderMakesOneOfThem) {
  const auto fits = [](int64_t tile, int64_t stride, PartLatent part) {
    const TileGrid pixels = {tile, tile, stride, stride};
    return CheckEncodeTiles(56, 88, pixels, pixels.InLatents(8), 8, part).ok();
  };
  EXPECT_TRUE(fits(32, 24, PartLatent::kOneMore));
  EXPECT_TRUE(fits(36, 24, PartLatent::kOneMore));
  EXPECT_FALSE(fits(40, 28, PartLatent::kOneMore));
  // 28 of 88 pixels are left behind three tiles, but 6 are no latent to such an encoder.
  EXPECT_FALSE(fits(20, 10, PartLatent::kNothing));
}

TEST(CheckEncodeTilesTest, TilesInTimeGiveAllLatentFrames) {
  EXPECT_TRUE(CheckEncodeTimeTiles(129, {16, 12}, 4).ok());
  EXPECT_TRUE(CheckEncodeTimeTiles(24, {16, 12}, 4).ok());
  EXPECT_TRUE(CheckEncodeTimeTiles(10, {10, 7}, 4).ok());
  const absl::Status status = CheckEncodeTimeTiles(24, {10, 7}, 4);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("give 4 latent frames, expected 6"));
}

TEST(ExpectOneConditionTest, SaysWhatIsWrong) {
  Request request;
  request.task = Task::kVideoToVideo;
  const auto says = [&](ConditionKind kind, bool fully) {
    std::vector<FieldViolation> violations;
    ExpectOneCondition(request, kind, fully, violations);
    std::string all;
    for (const FieldViolation& each : violations)
      all += each.field + ": " + each.description + "; ";
    return all;
  };
  EXPECT_THAT(says(ConditionKind::kVideo, true), HasSubstr("exactly one VIDEO here, got 0"));
  request.conditions = {{.kind = ConditionKind::kControlVideo, .frame_index = 3, .strength = 0.5}};
  EXPECT_THAT(says(ConditionKind::kVideo, true), HasSubstr("got CONTROL_VIDEO"));
  EXPECT_THAT(says(ConditionKind::kControlVideo, true), HasSubstr("conditions[0].frame_index"));
  EXPECT_THAT(says(ConditionKind::kControlVideo, true), HasSubstr("conditions[0].strength"));
  request.conditions[0].frame_index = 0;
  EXPECT_EQ(says(ConditionKind::kControlVideo, false), "");
}

}  // namespace
}  // namespace kino::engine
