#include "engine/core/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace kino::engine {
namespace {

using ::kino::testing::SafetensorsOf;
using ::kino::testing::TempDir;
using ::testing::HasSubstr;

TEST(CheckpointTest, ReadsASingleFile) {
  const TempDir folder;
  folder.Write("model.safetensors", SafetensorsOf({{"a", {1}, {7}}}));
  const auto checkpoint = Checkpoint::Open(folder.path(), "");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ASSERT_NE((*checkpoint)->Find("a"), nullptr);
  EXPECT_EQ((*checkpoint)->Find("b"), nullptr);
  EXPECT_EQ((*checkpoint)->bytes(), 4);
}

TEST(CheckpointTest, ReadsShardsByTheirIndex) {
  const TempDir folder;
  folder.Write("diffusion_pytorch_model-00001-of-00002.safetensors",
               SafetensorsOf({{"a", {1}, {1}}}));
  folder.Write("diffusion_pytorch_model-00002-of-00002.safetensors",
               SafetensorsOf({{"b", {2}, {2, 3}}}));
  folder.Write(
      "diffusion_pytorch_model.safetensors.index.json",
      R"({"metadata":{"total_size":12},"weight_map":{"a":"diffusion_pytorch_model-00001-of-00002.safetensors",
                   "b":"diffusion_pytorch_model-00002-of-00002.safetensors"}})");
  const auto checkpoint = Checkpoint::Open(folder.path(), "");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->tensors().size(), 2u);
}

TEST(CheckpointTest, ATensorTheIndexMisplacesIsNamed) {
  const TempDir folder;
  folder.Write("s1.safetensors", SafetensorsOf({{"a", {1}, {1}}}));
  folder.Write("model.safetensors.index.json",
               R"({"weight_map":{"a":"s1.safetensors","b":"s1.safetensors"}})");
  const auto checkpoint = Checkpoint::Open(folder.path(), "");
  EXPECT_EQ(checkpoint.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(checkpoint.status().message()),
              HasSubstr("tensor 'b' is not in 's1.safetensors'"));
}

TEST(CheckpointTest, AnIndexMayNotLeaveItsFolder) {
  const TempDir folder;
  folder.Write("model.safetensors.index.json", R"({"weight_map":{"a":"../secret.safetensors"}})");
  EXPECT_EQ(Checkpoint::Open(folder.path(), "").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(CheckpointTest, TheVariantPicksItsFileOnly) {
  const TempDir folder;
  folder.Write("model.safetensors", SafetensorsOf({{"a", {1}, {1}}}));
  folder.Write("model.fp16.safetensors", SafetensorsOf({{"half", {1}, {1}}}));
  const auto checkpoint = Checkpoint::Open(folder.path(), "fp16");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_NE((*checkpoint)->Find("half"), nullptr);
  const absl::Status missing = Checkpoint::Open(folder.path(), "bf16").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("model.bf16.safetensors"));
}

TEST(CheckpointTest, PickledWeightsAreRefusedByName) {
  const TempDir folder;
  folder.Write("pytorch_model.bin", "pickle");
  const absl::Status status = Checkpoint::Open(folder.path(), "").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("pickled"));
}

TEST(CheckpointTest, IdentityChangesWithTheFile) {
  const TempDir folder;
  folder.Write("model.safetensors", SafetensorsOf({{"a", {1}, {1}}}));
  const std::string before = (*Checkpoint::Open(folder.path(), ""))->identity();
  EXPECT_EQ((*Checkpoint::Open(folder.path(), ""))->identity(), before);
  folder.Write("model.safetensors", SafetensorsOf({{"a", {2}, {1, 2}}}));
  EXPECT_NE((*Checkpoint::Open(folder.path(), ""))->identity(), before);
}

}  // namespace
}  // namespace kino::engine
