#include "engine/media/frames.h"

#include <cmath>
#include <limits>
#include <vector>

#include "engine/media/frame_rate.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kino::engine {
namespace {

using ::testing::ElementsAre;

TEST(FramesTest, QuantizingRoundsTiesToEvenAndClamps) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> values = {0.0f,
                                     1.0f,
                                     -0.5f,
                                     2.0f,
                                     nan,
                                     0.5f,
                                     1.5f / 255,
                                     2.5f / 255,
                                     1e-9f,
                                     0.998f,
                                     std::numeric_limits<float>::infinity()};
  std::vector<uint8_t> bytes(values.size());
  QuantizeFrames(values.data(), values.size(), bytes.data());
  // 0.5 * 255 = 127.5 -> 128; 1.5 -> 2; 2.5 -> 2.
  EXPECT_THAT(bytes, ElementsAre(0, 255, 0, 255, 0, 128, 2, 2, 0, 254, 255));
}

TEST(FramesTest, TypesAreToldByTheirFirstBytes) {
  EXPECT_EQ(SniffMediaType("\x89PNG\r\n\x1a\n...."), MediaType::kPng);
  EXPECT_EQ(SniffMediaType("\xff\xd8\xff\xe0"), MediaType::kJpeg);
  EXPECT_EQ(SniffMediaType("RIFF....WEBPVP8 "), MediaType::kWebp);
  EXPECT_EQ(SniffMediaType("....ftypisom"), MediaType::kMp4);
  EXPECT_EQ(SniffMediaType("\x1a\x45\xdf\xa3....webm"), MediaType::kWebm);
  EXPECT_EQ(SniffMediaType("\x1a\x45\xdf\xa3....matroska"), MediaType::kMatroska);
  EXPECT_EQ(SniffMediaType("GIF89a"), std::nullopt);
  EXPECT_EQ(SniffMediaType(""), std::nullopt);
}

TEST(FrameRateTest, FractionsAreTheOnesMeant) {
  const auto fraction = [](double fps) {
    const auto rate = ToFrameRate(fps);
    return rate.ok() ? std::pair(rate->num, rate->den) : std::pair(0, 0);
  };
  EXPECT_EQ(fraction(24), std::pair(24, 1));
  EXPECT_EQ(fraction(8), std::pair(8, 1));
  EXPECT_EQ(fraction(23.976), std::pair(24000, 1001));
  EXPECT_EQ(fraction(23.98), std::pair(1199, 50));
  EXPECT_EQ(fraction(24000.0 / 1001), std::pair(24000, 1001));
  EXPECT_EQ(fraction(29.97), std::pair(30000, 1001));
  EXPECT_EQ(fraction(59.94), std::pair(60000, 1001));
  EXPECT_EQ(fraction(119.88), std::pair(120000, 1001));
  EXPECT_EQ(fraction(12.5), std::pair(25, 2));
  EXPECT_EQ(fraction(1.0 / 3), std::pair(1, 3));
  EXPECT_EQ(fraction(0.01), std::pair(1, 100));
  EXPECT_EQ(fraction(1000), std::pair(1000, 1));
  for (const double bad : {0.0, -24.0, 1001.0, 0.001, std::nan("")}) {
    EXPECT_EQ(ToFrameRate(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace kino::engine
