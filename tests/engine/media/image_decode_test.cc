#include "engine/media/image_decode.h"

#include <algorithm>
#include <random>
#include <string>

#include "engine/media/npy.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/media/media_fixtures.h"

namespace kino::engine {
namespace {

using ::testing::HasSubstr;

RgbImage Expected(const std::string& path) {
  const auto array = ReadNpy(path);
  EXPECT_TRUE(array.ok()) << array.status();
  RgbImage image;
  if (!array.ok() || array->shape.size() != 3) return image;
  image.height = static_cast<int>(array->shape[0]);
  image.width = static_cast<int>(array->shape[1]);
  image.rgb.assign(array->data.begin(), array->data.end());
  return image;
}

// How the pixels differ, or "" when they do not.
std::string Difference(const RgbImage& got, const RgbImage& want) {
  if (got.width != want.width || got.height != want.height) {
    return "size " + std::to_string(got.width) + "x" + std::to_string(got.height);
  }
  size_t count = 0;
  int largest = 0;
  for (size_t i = 0; i < want.rgb.size(); ++i) {
    const int difference = std::abs(got.rgb[i] - want.rgb[i]);
    count += difference != 0;
    largest = std::max(largest, difference);
  }
  if (count == 0) return "";
  return std::to_string(count) + " bytes differ, by up to " + std::to_string(largest);
}

TEST(ImageDecodeTest, PixelsAreTheOnesOfLoadImage) {
  int cases = 0;
  for (const auto& row : PillowCorpus().index) {
    if (row[0] != "image") continue;
    ++cases;
    const auto got = DecodeImage(ReadFile(PillowCorpus().scratch.path(row[1])), {});
    EXPECT_TRUE(got.ok()) << row[1] << ": " << got.status();
    if (!got.ok()) continue;
    EXPECT_EQ(Difference(*got, Expected(PillowCorpus().scratch.path(row[2]))), "") << row[1];
  }
  EXPECT_GT(cases, 400);
}

TEST(ImageDecodeTest, WhatPillowRefusesIsInvalid) {
  int cases = 0;
  for (const auto& row : PillowCorpus().index) {
    if (row[0] != "refused") continue;
    ++cases;
    const auto got = DecodeImage(ReadFile(PillowCorpus().scratch.path(row[1])), {});
    EXPECT_EQ(got.status().code(), absl::StatusCode::kInvalidArgument) << row[1] << got.status();
  }
  EXPECT_GT(cases, 30);
}

TEST(ImageDecodeTest, SizesBeyondTheLimitsAreRefusedForEachFormat) {
  for (const std::string name :
       {"png_type2_8_64x48.png", "jpeg_s0_q60_95x63.jpg", "webp_rgb_lossy_63x48.webp"}) {
    const std::string bytes = ReadFile(PillowCorpus().scratch.path(name));
    EXPECT_TRUE(DecodeImage(bytes, {.max_side_px = 95}).ok()) << name;
    for (const MediaLimits& limits :
         {MediaLimits{.max_side_px = 62}, MediaLimits{.max_pixels = 3000},
          MediaLimits{.max_aspect_ratio = 1.2}}) {
      const auto got = DecodeImage(bytes, limits);
      EXPECT_EQ(got.status().code(), absl::StatusCode::kResourceExhausted) << name;
      EXPECT_THAT(std::string(got.status().message()), HasSubstr("pixels")) << name;
    }
  }
}

// A header that declares 2^31 - 1 squared pixels must be refused from the header alone.
TEST(ImageDecodeTest, HugeDeclaredSizeIsRefusedBeforeAnyAllocation) {
  std::string png = ReadFile(PillowCorpus().scratch.path("png_type2_8_64x48.png"));
  // Width 0x2000 and height 0x2001 with the checksum of exactly that header.
  const std::string header("IHDR\x00\x00\x20\x01\x00\x00\x20\x01\x08\x02\x00\x00\x00", 17);
  uint32_t crc = ~0u;
  for (const char c : header) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0u);
  }
  crc = ~crc;
  png.replace(12, 17, header);
  for (int i = 0; i < 4; ++i) png[29 + i] = static_cast<char>(crc >> (24 - 8 * i));
  const auto got = DecodeImage(png, {});
  EXPECT_EQ(got.status().code(), absl::StatusCode::kResourceExhausted) << got.status();
  EXPECT_THAT(std::string(got.status().message()), HasSubstr("8193"));
}

// Whatever is cut off, the answer is a picture of the right size or a status; the sanitizer builds
// watch the rest.
TEST(ImageDecodeTest, TruncationAnywhereGivesAStatus) {
  int refused = 0;
  for (const std::string name :
       {"png_grey16_17x13i.png", "png_palette4_alpha_17x13.png", "apng.png", "jpeg_exif6.jpg",
        "jpeg_s2_q60p_95x63.jpg", "jpeg_cmyk_16x16.jpg", "webp_rgba_lossy_63x48.webp",
        "webp_rgb_lossless_63x48.webp", "webp_animated_4.webp", "webp_exif6.webp"}) {
    SCOPED_TRACE(name);
    const std::string bytes = [&] {
      const std::string path = PillowCorpus().scratch.path(name);
      return ReadFile(path);
    }();
    ASSERT_FALSE(bytes.empty());
    const size_t step = std::max<size_t>(1, bytes.size() / 400);
    for (size_t size = 0; size < bytes.size(); size += step) {
      // An exact heap copy, so that a read past the end is seen.
      const std::vector<char> part(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size));
      const auto got = DecodeImage(std::string_view(part.data(), part.size()), {});
      if (!got.ok()) {
        ++refused;
        EXPECT_EQ(got.status().code(), absl::StatusCode::kInvalidArgument) << size;
      }
    }
  }
  EXPECT_GT(refused, 2000);
}

TEST(ImageDecodeTest, FlippedBitsGiveAStatusOrAPicture) {
  const uint32_t seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  std::vector<std::string> names;
  for (const auto& row : PillowCorpus().index) {
    if (row[0] == "image") names.push_back(row[1]);
  }
  const MediaLimits limits{.max_side_px = 2048, .max_pixels = 1 << 20};
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    const std::string& name = names[random() % names.size()];
    std::string bytes = ReadFile(PillowCorpus().scratch.path(name));
    const int flips = 1 + static_cast<int>(random() % 8);
    for (int i = 0; i < flips; ++i) {
      bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8);
    }
    const auto got = DecodeImage(bytes, limits);
    refused += !got.ok();
    if (!got.ok()) continue;
    EXPECT_EQ(got->rgb.size(), 3 * static_cast<size_t>(got->width) * got->height);
  }
  EXPECT_GT(refused, 300);
}

}  // namespace
}  // namespace kino::engine
