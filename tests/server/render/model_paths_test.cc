#include "server/render/model_paths.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace kino::render {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class ModelPathsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(root_);
    fs::create_directories(root_ / "ltx" / "transformer");
    fs::create_directories(root_ / "loose");
    for (const char* file :
         {"ltx/model_index.json", "ltx/beside.gguf", "ltx/transformer/inside.safetensors",
          "loose/alone.gguf", "loose/pickle.bin"}) {
      std::ofstream(root_ / file) << "x";
    }
  }
  void TearDown() override { fs::remove_all(root_); }
  std::string Path(const std::string& name) const { return (root_ / name).string(); }
  absl::Status Error(const std::vector<std::string>& names) const {
    std::vector<std::string> paths;
    for (const std::string& name : names) paths.push_back(Path(name));
    return FindModel(paths).status();
  }

  const fs::path root_ = fs::path(testing::TempDir()) / "model_paths_test";
};

TEST_F(ModelPathsTest, FolderAndFileComeInEitherOrder) {
  const std::string folder = Path("ltx"), file = Path("loose/alone.gguf");
  for (const auto& paths : {std::vector{folder, file}, std::vector{file, folder}}) {
    const auto found = FindModel(paths);
    EXPECT_TRUE(found.ok()) << found.status();
    if (!found.ok()) continue;
    EXPECT_EQ(found->folder, folder);
    EXPECT_EQ(found->original_files, (engine::OriginalFiles{{"transformer", file}}));
  }
  EXPECT_EQ(FindModel({folder})->folder, folder);
  EXPECT_TRUE(FindModel({folder})->original_files.empty());
}

TEST_F(ModelPathsTest, AFileAloneGoesWithTheFolderAroundIt) {
  for (const char* name : {"ltx/beside.gguf", "ltx/transformer/inside.safetensors"}) {
    const auto found = FindModel({Path(name)});
    EXPECT_TRUE(found.ok()) << found.status();
    if (!found.ok()) continue;
    EXPECT_EQ(found->folder, Path("ltx"));
    EXPECT_EQ(found->original_files, (engine::OriginalFiles{{"transformer", Path(name)}}));
  }
}

TEST_F(ModelPathsTest, AFileMayNameTheComponentWhosePlaceItTakes) {
  const std::string inside = Path("ltx/beside.gguf"), loose = Path("loose/alone.gguf");
  const auto found = FindModel({"text_encoder=" + loose, Path("ltx"), inside});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->folder, Path("ltx"));
  EXPECT_EQ(found->original_files,
            (engine::OriginalFiles{{"text_encoder", loose}, {"transformer", inside}}));
  EXPECT_TRUE(absl::IsInvalidArgument(Error({"ltx", "loose/alone.gguf", "ltx/beside.gguf"})));
  EXPECT_TRUE(absl::IsInvalidArgument(FindModel({"text_encoder=" + Path("ltx")}).status()));
  EXPECT_TRUE(absl::IsNotFound(FindModel({"text_encoder=" + Path("absent.gguf")}).status()));
}

TEST_F(ModelPathsTest, WhatCannotBeAModelIsRefused) {
  const absl::Status alone = Error({"loose/alone.gguf"});
  EXPECT_TRUE(absl::IsInvalidArgument(alone));
  EXPECT_THAT(std::string(alone.message()), HasSubstr("second --model"));
  EXPECT_TRUE(absl::IsInvalidArgument(Error({"ltx", "loose"})));
  EXPECT_TRUE(absl::IsInvalidArgument(Error({"ltx/beside.gguf", "loose/alone.gguf"})));
  EXPECT_TRUE(absl::IsInvalidArgument(Error({"ltx", "loose/pickle.bin"})));
  EXPECT_TRUE(absl::IsNotFound(Error({"absent"})));
}

}  // namespace
}  // namespace kino::render
