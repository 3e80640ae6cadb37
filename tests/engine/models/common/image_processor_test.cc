// The image processors against transformers' own (image_processor_fixtures.py).
#include "engine/models/common/image_processor.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status_bridge.h"
#include "engine/core/trace.h"
#include "engine/media/npy.h"
#include "tests/support/fixture_folder.h"

namespace kino::engine {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

at::Tensor FloatsOf(const NpyArray& array) {
  EXPECT_EQ(array.type, NpyType::kFloat32);
  return at::from_blob(const_cast<char*>(array.data.data()), array.shape, at::kFloat).clone();
}

RgbImage ImageOf(const NpyArray& array) {
  EXPECT_EQ(array.type, NpyType::kUint8);
  return {.width = static_cast<int>(array.shape[1]),
          .height = static_cast<int>(array.shape[0]),
          .rgb = {array.data.begin(), array.data.end()}};
}

ImageProcessor Processor(const nlohmann::json& config) {
  const auto read = ImageProcessorConfig::FromJson(config, "x");
  EXPECT_TRUE(read.ok()) << read.status();
  return ImageProcessor(*read);
}

const nlohmann::json kClip = {{"image_processor_type", "CLIPImageProcessor"}};
const nlohmann::json kSiglip = {{"image_processor_type", "SiglipImageProcessor"}};

// Every byte is turned into a float by the same operations: bit for bit.
TEST(ImageProcessorTest, IsTransformersBitForBit) {
  const FixtureFolder folder;
  ASSERT_NO_FATAL_FAILURE(
      folder.RunOracle("models/common/image_processor_fixtures.py", std::to_string(TestSeed())));
  const auto cases = nlohmann::json::parse(folder.Read("cases.json"));
  int units = 0, pictures = 0;
  for (const nlohmann::json& one : cases) {
    SCOPED_TRACE(one["name"].get<std::string>());
    const auto read = [&](const char* key) {
      return *ReadNpy(absl::StrCat(folder.path(), "/", one[key].get<std::string>()));
    };
    const ImageProcessor processor = Processor(one["config"]);
    const bool is_unit = one["unit"];
    ++(is_unit ? units : pictures);
    const at::Tensor got = is_unit ? processor.ProcessUnit(FloatsOf(read("source")))
                                   : processor.Process(ImageOf(read("source")));
    const at::Tensor expected = FloatsOf(read("expected"));
    EXPECT_EQ(got.sizes(), expected.sizes());
    EXPECT_TRUE(at::equal(got, expected))
        << (got.sizes() == expected.sizes() ? (got - expected).abs().max().item<float>() : -1);
  }
  EXPECT_GT(units, 100);
  EXPECT_GT(pictures, 100);
}

TEST(ImageProcessorTest, PixelsOutsideOfTheUnitAreRefused) {
  const ImageProcessor processor = Processor(kSiglip);
  for (const double value : {-0.1, 1.001, std::numeric_limits<double>::quiet_NaN()}) {
    const at::Tensor pixels = at::full({1, 3, 4, 5}, 0.5);
    pixels[0][1][2].fill_(value);
    const absl::Status status = RunGuarded([&] {
      processor.ProcessUnit(pixels);
      return absl::OkStatus();
    });
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << value;
    EXPECT_THAT(std::string(status.message()), HasSubstr("expected 0 to 1"));
  }
}

TEST(ImageProcessorTest, APictureOfNoPixelsIsRefused) {
  for (const nlohmann::json& config : {kClip, kSiglip}) {
    const absl::Status status = RunGuarded([&] {
      Processor(config).Process({});
      return absl::OkStatus();
    });
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(ImageProcessorTest, ATraceHasTheShapeAlone) {
  nlohmann::json uncropped = kClip;
  uncropped["do_center_crop"] = false;
  for (const auto& [config, height, width] :
       {std::tuple{kClip, 224, 224}, {kSiglip, 224, 224}, {uncropped, 224, 336}}) {
    const Trace trace({.is_gpu = true});
    const at::Tensor pixels = Processor(config).Process({.width = 60, .height = 40, .rgb = {}});
    EXPECT_TRUE(pixels.is_meta());
    EXPECT_EQ(pixels.sizes(), at::IntArrayRef({1, 3, height, width}));
    const at::Tensor unit =
        at::empty({1, 3, 40, 60}, at::TensorOptions(at::kMeta).dtype(at::kFloat));
    EXPECT_EQ(Processor(config).ProcessUnit(unit).sizes(), pixels.sizes());
  }
}

TEST(ImageProcessorTest, ConfigsThatAreNotReadAreRefusedByName) {
  constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  struct Case {
    const char* key;
    nlohmann::json value;
    absl::StatusCode code;
    const char* says;
  };
  for (const Case& wrong : std::vector<Case>{
           {"image_processor_type", "ViTImageProcessor", kUnimplemented, "'ViTImageProcessor'"},
           {"image_processor_type", nullptr, kUnimplemented, "image_processor_type ''"},
           {"image_processor_type", 3, kInvalid, "image_processor_type"},
           {"do_resize", false, kUnimplemented, "do_resize false"},
           {"resample", 2, kUnimplemented, "resample 2"},
           {"size", {{"shortest_edge", 48}, {"longest_edge", 90}}, kUnimplemented, "longest_edge"},
           {"size", {{"height", 48}}, kUnimplemented, "expected height and width"},
           {"size", {{"max_height", 4}, {"max_width", 4}}, kUnimplemented, "max_height"},
           {"size", 0, kInvalid, "'size' is 0"},
           {"size", {{"height", 48}, {"width", 1 << 20}}, kInvalid, "'width'"},
           {"size", "large", kInvalid, "'size'"},
           {"crop_size", {{"shortest_edge", 48}}, kUnimplemented, "crop_size"},
           {"crop_size", {{"height", -1}, {"width", 3}}, kInvalid, "'height' is -1"},
           {"image_mean", {0.5, 0.5}, kInvalid, "2 values"},
           {"image_std", {0.5, 0.0, 0.5}, kInvalid, "image_std"},
           {"rescale_factor", "1/255", kInvalid, "rescale_factor"}}) {
    nlohmann::json config = kClip;
    config[wrong.key] = wrong.value;
    const absl::Status status = ImageProcessorConfig::FromJson(config, "x/config.json").status();
    EXPECT_EQ(status.code(), wrong.code) << wrong.key << ": " << status;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("x/config.json"), HasSubstr(wrong.says)));
  }
  for (const char* name : {"CLIPImageProcessorFast", "CLIPImageProcessorPil",
                           "CLIPFeatureExtractor", "SiglipImageProcessorFast"})
    EXPECT_TRUE(ImageProcessorConfig::FromJson({{"image_processor_type", name}}, "x").ok()) << name;
}

}  // namespace
}  // namespace kino::engine
