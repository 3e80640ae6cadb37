#include "engine/models/ltx/tokens.h"

#include <ATen/ops/arange.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/core/status_bridge.h"

namespace kino::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// 25 frames are 4 latent frames, each of 2 x 3 tokens.
LtxTokens LayOut(const std::vector<Condition>& conditions, const std::vector<int>& media_frames) {
  Request request;
  request.height = 64;
  request.width = 96;
  request.num_frames = 25;
  request.conditions = conditions;
  std::vector<MediaInput> media;
  for (const int frames : media_frames) media.emplace_back().num_frames = frames;
  return LayOutTokens(LtxVaeConfig{}, request, media);
}

std::string Held(const LtxTokens& tokens) {
  std::string text;
  for (const LtxHeldTokens& held : tokens.held)
    text += std::to_string(held.begin) + ".." + std::to_string(held.end) + ":" +
            std::to_string(static_cast<int>(held.strength * 100)) + " ";
  return text;
}

TEST(LtxTokensTest, WithoutConditionsAllAreFree) {
  const LtxTokens tokens = LayOut({}, {});
  EXPECT_EQ(tokens.count(), 24);
  EXPECT_EQ(tokens.added, 0);
  EXPECT_EQ(Held(tokens), "0..24:0 ");
}

TEST(LtxTokensTest, WhatBeginsTheVideoIsMixedIn) {
  EXPECT_EQ(Held(LayOut({Condition{}}, {1})), "0..6:100 6..24:0 ");
  const Condition video{.kind = ConditionKind::kVideo, .strength = 0.5};
  const LtxTokens tokens = LayOut({video}, {17});
  EXPECT_EQ(Held(tokens), "0..18:50 18..24:0 ");
  EXPECT_EQ(tokens.conditions[0].frames, 17);
  EXPECT_EQ(tokens.conditions[0].mixed, 3);
}

TEST(LtxTokensTest, WhatComesLaterHasTokensOfItsOwn) {
  const LtxTokens image = LayOut({Condition{.frame_index = 12}}, {1});
  EXPECT_EQ(image.added, 6);
  EXPECT_EQ(Held(image), "0..6:100 6..30:0 ");
  // Of a video the first two latent frames; the third goes into the video's own, behind the two.
  const LtxTokens video =
      LayOut({{.kind = ConditionKind::kVideo, .frame_index = 8, .strength = 0.7}}, {17});
  EXPECT_EQ(video.added, 12);
  EXPECT_EQ(video.conditions[0].mixed_from, 3);
  EXPECT_EQ(Held(video), "0..12:70 12..30:0 30..36:70 ");
}

TEST(LtxTokensTest, LaterConditionsCoverEarlierOnes) {
  const Condition video{.kind = ConditionKind::kVideo};
  EXPECT_EQ(Held(LayOut({video, Condition{.strength = 0.25}}, {9, 1})),
            "0..6:25 6..12:100 12..24:0 ");
}

TEST(LtxTokensTest, AVideoIsCutToTheRoomAndToWholeLatentFrames) {
  const Condition later{.kind = ConditionKind::kControlVideo, .frame_index = 5};
  EXPECT_EQ(LayOut({later}, {100}).conditions[0].frames, 17);
  EXPECT_EQ(LayOut({later}, {16}).conditions[0].frames, 9);
  EXPECT_EQ(LayOut({later}, {7}).conditions[0].frames, 1);
  EXPECT_EQ(LayOut({{.kind = ConditionKind::kVideo}}, {100}).conditions[0].frames, 25);
  try {
    LayOut({Condition{}, later}, {1, 0});
    FAIL() << "a video without frames was taken";
  } catch (const StatusError& error) {
    EXPECT_THAT(std::string(error.status().message()), HasSubstr("conditions[1]: 0 frames"));
  }
}

TEST(LtxTokensTest, PositionsAreThoseOfTheFramesThatLatentsHold) {
  const std::vector<Condition> conditions = {{.frame_index = 12}};
  const LtxTokens tokens = LayOut(conditions, {1});
  const at::Tensor positions = PixelPositions(tokens, LtxVaeConfig{}, conditions, 25, at::kCPU);
  ASSERT_THAT(positions.sizes(), ElementsAre(30, 3));
  const auto at = [&positions](int64_t token, int64_t axis) {
    return positions[token][axis].item<float>();
  };
  EXPECT_FLOAT_EQ(at(0, 0), 12 / 25.0f);  // the image
  EXPECT_FLOAT_EQ(at(6, 0), 0);
  EXPECT_FLOAT_EQ(at(12, 0), 1 / 25.0f);
  EXPECT_FLOAT_EQ(at(18, 0), 9 / 25.0f);
  EXPECT_FLOAT_EQ(at(11, 1), 32);
  EXPECT_FLOAT_EQ(at(11, 2), 64);
  // LTXPipeline's have no first frame of its own.
  EXPECT_FLOAT_EQ(GridPositions(tokens.grid, 8 / 25.0, 32, at::kCPU)[6][0].item<float>(),
                  8 / 25.0f);
}

}  // namespace
}  // namespace kino::engine
