#include "engine/media/resize.h"

#include <string>

#include "engine/media/npy.h"
#include "gtest/gtest.h"
#include "tests/engine/media/media_fixtures.h"

namespace kino::engine {
namespace {

RgbImage FromNpy(const std::string& path) {
  const auto array = ReadNpy(path);
  EXPECT_TRUE(array.ok()) << array.status();
  return {static_cast<int>(array->shape[1]), static_cast<int>(array->shape[0]),
          std::vector<uint8_t>(array->data.begin(), array->data.end())};
}

using Resize = absl::StatusOr<RgbImage> (*)(const RgbImage& image, int width, int height);

// column: of the index, where Pillow's results are.
void ExpectPillows(Resize resize, size_t column) {
  int cases = 0;
  for (const auto& row : PillowCorpus().index) {
    if (row[0] != "resize") continue;
    ++cases;
    const RgbImage source = FromNpy(PillowCorpus().scratch.path(row[1]));
    const RgbImage want = FromNpy(PillowCorpus().scratch.path(row[column]));
    const auto got = resize(source, std::stoi(row[2]), std::stoi(row[3]));
    EXPECT_TRUE(got.ok()) << got.status();
    if (!got.ok()) continue;
    EXPECT_EQ(got->width, want.width);
    if (got->width != want.width) continue;
    EXPECT_EQ(got->height, want.height);
    if (got->height != want.height) continue;
    EXPECT_TRUE(got->rgb == want.rgb)
        << source.width << "x" << source.height << " to " << want.width << "x" << want.height;
  }
  EXPECT_GT(cases, 100);
}

TEST(ResizeTest, LanczosEqualsPillowBitForBit) { ExpectPillows(ResizeLanczos, 4); }

TEST(ResizeTest, BicubicEqualsPillowBitForBit) { ExpectPillows(ResizeBicubic, 5); }

TEST(ResizeTest, SidesBelowOneAreInvalid) {
  const RgbImage image = MovingPicture(4, 4, 0);
  EXPECT_EQ(ResizeLanczos(image, 0, 4).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ResizeLanczos(image, 4, -1).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ResizeLanczos({}, 4, 4).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ResizeBicubic({}, 4, 4).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kino::engine
