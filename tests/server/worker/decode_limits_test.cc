// The configuration's limits, down to a picture that kino-media decodes.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "server/convert/condition_media.h"
#include "server/worker/worker_main.h"
#include "tests/engine/media/media_fixtures.h"

namespace kino::worker {
namespace {

config::Config ConfigWith(const std::string& folder, const std::string& limits) {
  std::ofstream(folder + "/kino.yaml") << "data_dir: " << folder << "\nworkers: [{name: w1}]\n"
                                       << limits;
  const auto config = config::LoadConfig(folder + "/kino.yaml");
  EXPECT_TRUE(config.ok()) << config.status();
  return config.value_or(config::Config());
}

TEST(DecodeLimitsTest, APictureAboveTheDefaultIsDecodedWhereTheConfigurationAllowsIt) {
  const engine::ScratchFolder scratch;
  const std::string picture = scratch.path("large.png");
  engine::RunCommand(absl::StrCat(KINO_PYTHON,
                                  " -c \"from PIL import Image; Image.new('RGB', (7000, 5000), "
                                  "(10, 20, 30)).save('",
                                  picture, "', compress_level=1)\""));
  const auto decode = [&](const std::string& limits) {
    media::DecodeOptions options = DecodeOptionsOf(ConfigWith(scratch.folder(), limits).limits);
    options.kino_media_path = KINO_BIN_DIR "/kino-media";
    return convert::DecodeCondition(picture, engine::ConditionKind::kImage, options);
  };
  EXPECT_EQ(decode("").status().code(), absl::StatusCode::kResourceExhausted);
  const auto raised = decode("limits: {max_image_pixels: 35000000}\n");
  ASSERT_TRUE(raised.ok()) << raised.status();
  EXPECT_EQ(raised->width, 7000);
  EXPECT_EQ(raised->height, 5000);
  EXPECT_EQ(raised->rgb.back(), 30);
  EXPECT_EQ(decode("limits: {max_image_pixels: 34999999}\n").status().code(),
            absl::StatusCode::kResourceExhausted);
  // A file that is smaller than this one may be.
  const auto bytes = std::filesystem::file_size(picture);
  EXPECT_EQ(decode(absl::StrCat("limits: {max_image_pixels: 35000000, max_upload_size: ", bytes - 1,
                                "}\n"))
                .status()
                .code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(
      decode(absl::StrCat("limits: {max_image_pixels: 35000000, max_upload_size: ", bytes, "}\n"))
          .ok());
}

TEST(DecodeConditionTest, APictureIsNoVideo) {
  const engine::ScratchFolder scratch;
  const std::string picture = scratch.path("small.png");
  engine::RunCommand(absl::StrCat(KINO_PYTHON,
                                  " -c \"from PIL import Image; Image.new('RGB', (8, 8)).save('",
                                  picture, "')\""));
  media::DecodeOptions options;
  options.kino_media_path = KINO_BIN_DIR "/kino-media";
  EXPECT_TRUE(convert::DecodeCondition(picture, engine::ConditionKind::kImage, options).ok());
  for (const engine::ConditionKind kind :
       {engine::ConditionKind::kVideo, engine::ConditionKind::kControlVideo}) {
    EXPECT_EQ(convert::DecodeCondition(picture, kind, options).status(),
              absl::InvalidArgumentError("expected a video, got an image"));
  }
}

TEST(DecodeLimitsTest, AllFramesOfAVideoThatWasAcceptedFit) {
  config::LimitsConfig limits;
  EXPECT_GE(DecodeOptionsOf(limits).max_output_bytes, 3 * limits.max_video_pixels);
  limits.max_video_pixels = 1000;
  EXPECT_GE(DecodeOptionsOf(limits).max_output_bytes, 3 * limits.max_image_pixels)
      << "a picture is not a video";
  limits.max_image_pixels = 5000;
  EXPECT_LT(DecodeOptionsOf(limits).max_output_bytes, int64_t{2} << 20);
}

}  // namespace
}  // namespace kino::worker
