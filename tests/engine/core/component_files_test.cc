// Original files in the place of a folder's component.
#include "engine/core/component_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace kino::engine {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Its config is the folder's.
absl::StatusOr<FoundComponent> Find(const TensorFile& file, const nlohmann::json* folder_config) {
  return FoundUnderFolderNames(file, "network", folder_config);
}

class OriginalFileTest : public ::testing::Test {
 protected:
  const kino::testing::TempDir folder_;
  const std::string path_ =
      folder_.Write("one.safetensors", kino::testing::SafetensorsOf({{"weight", {1}, {1}}}));
};

// How the folder's own files are stored does not say how this one is.
TEST_F(OriginalFileTest, TakesTheFoldersConfigWithoutItsQuantization) {
  folder_.Write("config.json", R"({"width": 3, "quantization_config": {"load_in_8bit": true}})");
  const auto files = ComponentFiles::OpenOriginal(path_, folder_.path(), Find);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(files->config, nlohmann::json({{"width", 3}}));
  EXPECT_NE(files->checkpoint->Find("weight"), nullptr);
}

TEST_F(OriginalFileTest, UnderAFoldersNamesItNeedsTheFoldersConfig) {
  const absl::Status status = ComponentFiles::OpenOriginal(path_, folder_.path(), Find).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr(path_), HasSubstr("network"), HasSubstr("config.json")));
}

}  // namespace
}  // namespace kino::engine
