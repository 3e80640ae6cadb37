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

TEST(FramesTest, FilesThatAreNotReadAreNamed) {
  constexpr char kPicture[] = "; save it as PNG, JPEG or WebP";
  constexpr char kVideo[] = "; save it as MP4, WebM, Matroska or MPEG-TS";
  const struct {
    std::string bytes;
    std::string name;
  } cases[] = {
      {Ftyp({"heic"}), std::string("a HEIC picture") + kPicture},
      {Ftyp({"heix", "mif1"}), std::string("a HEIC picture") + kPicture},
      {Ftyp({"mif1", "heic", "miaf"}), std::string("a HEIC picture") + kPicture},
      {Ftyp({"msf1", "hevc"}), std::string("a HEIC picture") + kPicture},
      {Ftyp({"avif", "mif1"}), std::string("an AVIF picture") + kPicture},
      {Ftyp({"mif1", "miaf", "avif"}), std::string("an AVIF picture") + kPicture},
      {Ftyp({"avis"}), std::string("an AVIF picture") + kPicture},
      {Ftyp({"mif1", "jpeg"}), std::string("a HEIF picture") + kPicture},
      {"GIF89a", std::string("a GIF") + kPicture},
      {std::string("II*\0", 4), std::string("a TIFF picture") + kPicture},
      {std::string("MM\0*", 4), std::string("a TIFF picture") + kPicture},
      {"RIFF....AVI LIST", std::string("an AVI video") + kVideo},
      {"FLV\1....", std::string("a Flash video (FLV)") + kVideo},
      {"OggS....", std::string("an Ogg file") + kVideo},
      {"\x30\x26\xb2\x75\x8e\x66\xcf\x11....", std::string("a Windows Media (ASF) file") + kVideo},
      {std::string("\0\0\1\xba....", 8), std::string("an MPEG program stream") + kVideo},
      {"hello", "none of PNG, JPEG, WebP, MP4, WebM, Matroska and MPEG-TS"},
      {"", "none of PNG, JPEG, WebP, MP4, WebM, Matroska and MPEG-TS"},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(DescribeUnreadable(c.bytes), c.name);
    EXPECT_EQ(SniffMediaType(c.bytes), std::nullopt) << c.name;
  }
}

// So many packets, each behind `ahead` bytes and before `behind`.
std::string TransportStream(int packets, size_t ahead, size_t behind) {
  std::string bytes;
  for (int i = 0; i < packets; ++i) {
    bytes += std::string(ahead, '\0') + "\x47" + std::string(187 + behind, '.');
  }
  return bytes;
}

TEST(FramesTest, TypesAreToldByTheirFirstBytes) {
  EXPECT_EQ(SniffMediaType("\x89PNG\r\n\x1a\n...."), MediaType::kPng);
  EXPECT_EQ(SniffMediaType("\xff\xd8\xff\xe0"), MediaType::kJpeg);
  EXPECT_EQ(SniffMediaType("RIFF....WEBPVP8 "), MediaType::kWebp);
  EXPECT_EQ(SniffMediaType("....ftypisom"), MediaType::kMp4);
  EXPECT_EQ(SniffMediaType("\x1a\x45\xdf\xa3....webm"), MediaType::kWebm);
  EXPECT_EQ(SniffMediaType("\x1a\x45\xdf\xa3....matroska"), MediaType::kMatroska);
  EXPECT_EQ(SniffMediaType("....moov"), MediaType::kMp4);
  EXPECT_EQ(SniffMediaType("....mdat"), MediaType::kMp4);
  EXPECT_EQ(SniffMediaType(TransportStream(5, 0, 0)), MediaType::kMpegTs);
  EXPECT_EQ(SniffMediaType(TransportStream(9, 4, 0)), MediaType::kMpegTs);
  EXPECT_EQ(SniffMediaType(TransportStream(5, 0, 16)), MediaType::kMpegTs);
  EXPECT_EQ(SniffMediaType(TransportStream(4, 0, 0)), std::nullopt);
  EXPECT_EQ(SniffMediaType(TransportStream(5, 1, 0)), std::nullopt);
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
