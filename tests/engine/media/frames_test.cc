#include "engine/media/frames.h"

#include <cmath>
#include <limits>
#include <string>
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

// The first box of an ISO base media file, with its own brand first.
std::string Ftyp(const std::vector<std::string>& brands) {
  std::string box = "ftyp" + brands[0] + std::string(4, '\0');
  for (size_t i = 1; i < brands.size(); ++i) box += brands[i];
  const std::string size = {0, 0, 0, static_cast<char>(box.size() + 4)};
  // What follows is another box: its bytes are no brands.
  return size + box + "....meta....avif";
}

TEST(FramesTest, PicturesThatAreNotReadAreNamed) {
  const struct {
    std::string bytes;
    const char* name;
  } cases[] = {
      {Ftyp({"heic"}), "a HEIC picture"},
      {Ftyp({"heix", "mif1"}), "a HEIC picture"},
      {Ftyp({"mif1", "heic", "miaf"}), "a HEIC picture"},
      {Ftyp({"msf1", "hevc"}), "a HEIC picture"},
      {Ftyp({"avif", "mif1"}), "an AVIF picture"},
      {Ftyp({"mif1", "miaf", "avif"}), "an AVIF picture"},
      {Ftyp({"avis"}), "an AVIF picture"},
      {Ftyp({"mif1", "jpeg"}), "a HEIF picture"},
      {"GIF89a", "a GIF"},
      {std::string("II*\0", 4), "a TIFF picture"},
      {std::string("MM\0*", 4), "a TIFF picture"},
      {Ftyp({"isom", "iso2", "avc1"}), ""},
      {Ftyp({"mp42"}).substr(0, 11), ""},
      {"\x89PNG\r\n\x1a\n", ""},
      {"", ""},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(NameOfUnreadable(c.bytes), c.name);
    if (*c.name != 0) {
      EXPECT_EQ(SniffMediaType(c.bytes), std::nullopt) << c.name;
    }
  }
}

TEST(FramesTest, TypesAreToldByTheirFirstBytes) {
  EXPECT_EQ(SniffMediaType("\x89PNG\r\n\x1a\n...."), MediaType::kPng);
  EXPECT_EQ(SniffMediaType("\xff\xd8\xff\xe0"), MediaType::kJpeg);
  EXPECT_EQ(SniffMediaType("RIFF....WEBPVP8 "), MediaType::kWebp);
  EXPECT_EQ(SniffMediaType("....ftypisom"), MediaType::kMp4);
  EXPECT_EQ(SniffMediaType("\x1a\x45\xdf\xa3....webm"), MediaType::kWebm);
  EXPECT_EQ(SniffMediaType("\x1a\x45\xdf\xa3....matroska"), MediaType::kMatroska);
  EXPECT_EQ(SniffMediaType("GIF89a"), std::nullopt);
  EXPECT_EQ(SniffMediaType(Ftyp({"qt  "})), MediaType::kMp4);
  EXPECT_EQ(SniffMediaType(Ftyp({"iso5", "mif1", "heic"})), MediaType::kMp4);
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
