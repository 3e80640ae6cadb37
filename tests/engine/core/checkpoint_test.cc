#include "engine/core/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/gguf_writer.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace kino::engine {
namespace {

using ::kino::testing::GgufWriter;
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

// It would be read all the same, but from a file that the index does not mean.
TEST(CheckpointTest, ATensorInAnotherShardIsNamed) {
  const TempDir folder;
  folder.Write("s1.safetensors", SafetensorsOf({{"a", {1}, {1}}, {"b", {1}, {1}}}));
  folder.Write("s2.safetensors", SafetensorsOf({{"c", {1}, {1}}}));
  folder.Write(
      "model.safetensors.index.json",
      R"({"weight_map":{"a":"s1.safetensors","b":"s2.safetensors","c":"s2.safetensors"}})");
  EXPECT_THAT(std::string(Checkpoint::Open(folder.path(), "").status().message()),
              HasSubstr("tensor 'b' is not in 's2.safetensors'"));
}

TEST(CheckpointTest, AnIndexMayNotLeaveItsFolder) {
  const TempDir folder;
  folder.Write("model.safetensors.index.json", R"({"weight_map":{"a":"../secret.safetensors"}})");
  EXPECT_EQ(Checkpoint::Open(folder.path(), "").status().code(),
            absl::StatusCode::kInvalidArgument);
}

// The name of the only tensor that is read.
std::string OnlyTensor(const TempDir& folder, const std::string& variant) {
  const auto checkpoint = Checkpoint::Open(folder.path(), variant);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  if (!checkpoint.ok() || (*checkpoint)->tensors().size() != 1) return "none";
  return (*checkpoint)->tensors().begin()->first;
}

std::string ErrorOf(const TempDir& folder, const std::string& variant) {
  const absl::Status status = Checkpoint::Open(folder.path(), variant).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
  return std::string(status.message());
}

TEST(CheckpointTest, AVariantIsReadWhereThereIsOne) {
  const TempDir folder;
  folder.Write("model.safetensors", SafetensorsOf({{"plain", {1}, {1}}}));
  folder.Write("model.fp16.safetensors", SafetensorsOf({{"half", {1}, {1}}}));
  EXPECT_EQ(OnlyTensor(folder, ""), "plain");
  EXPECT_EQ(OnlyTensor(folder, "fp16"), "half");
  EXPECT_EQ((*Checkpoint::Open(folder.path(), "fp16"))->variant(), "fp16");
  // As diffusers does it, component by component.
  EXPECT_EQ(OnlyTensor(folder, "bf16"), "plain");
  EXPECT_EQ((*Checkpoint::Open(folder.path(), "bf16"))->variant(), "");
}

TEST(CheckpointTest, WhatIsOnlyThereAsAVariantIsNotReadUnasked) {
  const TempDir folder;
  folder.Write("model.fp16-00001-of-00002.safetensors", SafetensorsOf({{"half", {1}, {1}}}));
  folder.Write("config.json", "{}");
  EXPECT_THAT(ErrorOf(folder, ""),
              HasSubstr("model.safetensors, model.safetensors.index.json; it holds weights of "
                        "variant fp16: set"));
  EXPECT_THAT(ErrorOf(folder, "bf16"), HasSubstr("model.bf16.safetensors"));
}

// diffusers' models ask for an index first, transformers' for a single file.
TEST(CheckpointTest, ShardsBesideASingleFile) {
  for (const std::string variant : {"", ".fp16"}) {
    const std::string asked = variant.empty() ? "" : "fp16";
    for (const auto& [base, read] :
         {std::pair{"diffusion_pytorch_model", "shard"}, std::pair{"model", "single"}}) {
      const TempDir folder;
      folder.Write("s1.safetensors", SafetensorsOf({{"shard", {1}, {1}}}));
      folder.Write(base + variant + ".safetensors", SafetensorsOf({{"single", {1}, {1}}}));
      folder.Write(std::string(base) + ".safetensors.index" + variant + ".json",
                   R"({"weight_map":{"shard":"s1.safetensors"}})");
      EXPECT_EQ(OnlyTensor(folder, asked), read) << base << variant;
    }
  }
  const TempDir folder;
  folder.Write("s1.safetensors", SafetensorsOf({{"shard", {1}, {1}}}));
  folder.Write("diffusion_pytorch_model.fp16.safetensors", SafetensorsOf({{"single", {1}, {1}}}));
  folder.Write("diffusion_pytorch_model.safetensors.fp16.index.json",
               R"({"weight_map":{"shard":"s1.safetensors"}})");
  EXPECT_EQ(OnlyTensor(folder, "fp16"), "shard");
}

TEST(CheckpointTest, AShardThatIsMissingIsNamed) {
  const TempDir folder;
  folder.Write(
      "model.safetensors.index.json",
      R"({"weight_map":{"a":"s1.safetensors","b":"s2.safetensors","c":"s3.safetensors"}})");
  folder.Write("s1.safetensors", SafetensorsOf({{"a", {1}, {1}}}));
  for (const char* variant : {"", "fp16"}) {
    EXPECT_THAT(ErrorOf(folder, variant),
                HasSubstr("model.safetensors.index.json' names 3 files, and of them "
                          "'s2.safetensors', 's3.safetensors' are not beside it"));
  }
  folder.Write("s3.safetensors", SafetensorsOf({{"c", {1}, {1}}}));
  EXPECT_THAT(ErrorOf(folder, ""), HasSubstr("of them 's2.safetensors' is not beside it"));
  std::filesystem::create_symlink("../../blobs/0a1b", folder.path() + "/s2.safetensors");
  EXPECT_THAT(ErrorOf(folder, ""), HasSubstr("/s2.safetensors' is a link to a file"));
}

TEST(CheckpointTest, ALinkThatLeadsNowhereIsNamed) {
  for (const std::string name : {"model.safetensors", "diffusion_pytorch_model.fp16.safetensors",
                                 "diffusion_pytorch_model.safetensors.index.json"}) {
    const TempDir folder;
    std::filesystem::create_symlink("../../blobs/0a1b", folder.path() + "/" + name);
    EXPECT_THAT(ErrorOf(folder, "fp16"), HasSubstr("/" + name + "' is a link to a file"));
    // One that leads somewhere is as good as a file.
    if (name.ends_with(".json")) continue;
    const std::string target = folder.Write("blob", SafetensorsOf({{"a", {1}, {1}}}));
    std::filesystem::remove(folder.path() + "/" + name);
    std::filesystem::create_symlink(target, folder.path() + "/" + name);
    EXPECT_EQ(OnlyTensor(folder, "fp16"), "a");
  }
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

// "m.X" is the model's X; "m.qkv" its q, k and v, two rows each; "other.X" another component's.
KeyMap TestMap() {
  return {.name = "test map",
          .map = [](std::string_view name, const TensorEntry&) -> std::vector<MappedTensor> {
            if (!name.starts_with("m.")) return {};
            name.remove_prefix(2);
            if (name != "qkv") return {{.name = std::string(name)}};
            return {{.name = "q", .first_row = 0, .rows = 2},
                    {.name = "k", .first_row = 2, .rows = 2},
                    {.name = "v", .first_row = 4}};
          }};
}

std::string BytesOf(const Checkpoint& checkpoint, std::string_view name) {
  const TensorEntry* entry = checkpoint.Find(name);
  if (entry == nullptr) return "none";
  return std::string(reinterpret_cast<const char*>(entry->data), static_cast<size_t>(entry->bytes));
}

std::string FloatBytes(const std::vector<float>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

TEST(CheckpointTest, ASingleFileIsReadThroughItsKeyMap) {
  const TempDir folder;
  const std::string path = folder.Write(
      "file", SafetensorsOf({{"m.a", {2}, {1, 2}},
                             {"other.a", {1}, {9}},
                             {"m.qkv", {6, 2}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}}}));
  const auto checkpoint = Checkpoint::OpenFile(path, TestMap());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->tensors().size(), 4u);
  EXPECT_EQ((*checkpoint)->bytes(), 8 + 48);
  EXPECT_EQ((*checkpoint)->folder(), path);
  EXPECT_EQ(BytesOf(**checkpoint, "a"), FloatBytes({1, 2}));
  EXPECT_EQ(BytesOf(**checkpoint, "k"), FloatBytes({4, 5, 6, 7}));
  EXPECT_EQ(BytesOf(**checkpoint, "v"), FloatBytes({8, 9, 10, 11}));
  EXPECT_EQ((*checkpoint)->Find("v")->shape, (std::vector<int64_t>{2, 2}));
}

TEST(CheckpointTest, RowsOfBlocksAreTakenAsTheyAreStored) {
  // Q8_0: 34 bytes for a row of 32.
  std::string data;
  for (char row = 'a'; row < 'g'; ++row) data += std::string(34, row);
  GgufWriter writer;
  writer.tensors = {{"m.qkv", {32, 6}, kino::testing::kGgmlQ8_0, data}};
  const TempDir folder;
  const auto checkpoint = Checkpoint::OpenFile(folder.Write("file", writer.Bytes()), TestMap());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(BytesOf(**checkpoint, "k"), std::string(34, 'c') + std::string(34, 'd'));
  const TensorEntry* k = (*checkpoint)->Find("k");
  EXPECT_EQ(k->shape, (std::vector<int64_t>{2, 32}));
  EXPECT_EQ(k->block, GgmlType::kQ8_0);
}

TEST(CheckpointTest, RowsThatATensorDoesNotHaveAreRefused) {
  const TempDir folder;
  const absl::Status few =
      Checkpoint::OpenFile(folder.Write("few", SafetensorsOf({{"m.qkv", {3}, {0, 1, 2}}})),
                           TestMap())
          .status();
  EXPECT_EQ(few.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(few.message()), HasSubstr("'m.qkv', as 'k': rows [2, 2 + 2) of [3]"));
  const absl::Status scalar =
      Checkpoint::OpenFile(folder.Write("scalar", SafetensorsOf({{"m.qkv", {}, {0}}})), TestMap())
          .status();
  EXPECT_THAT(std::string(scalar.message()), HasSubstr("0 dimensions, expected at least 1"));
  GgufWriter writer;
  writer.tensors = {{"m.qkv", {192}, kino::testing::kGgmlQ8_0, std::string(204, 'x')}};
  const absl::Status blocks =
      Checkpoint::OpenFile(folder.Write("blocks", writer.Bytes()), TestMap()).status();
  EXPECT_THAT(std::string(blocks.message()), HasSubstr("1 dimensions, expected at least 2"));
}

TEST(CheckpointTest, TwoTensorsOfOneNameAreRefused) {
  const TempDir folder;
  const std::string path =
      folder.Write("file", SafetensorsOf({{"m.q", {1}, {1}}, {"m.qkv", {5}, {0, 1, 2, 3, 4}}}));
  const absl::Status status = Checkpoint::OpenFile(path, TestMap()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("tensors 'm.q' and 'm.qkv' are both 'q' (test map)"));
}

TEST(CheckpointTest, AFileOfOtherComponentsIsNotFound) {
  const TempDir folder;
  const std::string path = folder.Write("file", SafetensorsOf({{"other.a", {1}, {1}}}));
  const absl::Status status = Checkpoint::OpenFile(path, TestMap()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("holds no tensor of the test map"));
}

TEST(CheckpointTest, ComponentsOfOneFileShareItButNotTheirIdentity) {
  const TempDir folder;
  const std::string path =
      folder.Write("file", SafetensorsOf({{"m.a", {1}, {1}}, {"other.a", {1}, {2}}}));
  const auto file = TensorFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const KeyMap other = {.name = "other map", .map = [](std::string_view name, const TensorEntry&) {
                          return name.starts_with("other.")
                                     ? std::vector<MappedTensor>{{.name = std::string(name)}}
                                     : std::vector<MappedTensor>{};
                        }};
  const auto mine = Checkpoint::FromFile(*file, TestMap());
  const auto its = Checkpoint::FromFile(*file, other);
  ASSERT_TRUE(mine.ok() && its.ok());
  EXPECT_NE((*mine)->identity(), (*its)->identity());
  EXPECT_EQ((*mine)->identity(), (*Checkpoint::OpenFile(path, TestMap()))->identity());
  EXPECT_EQ(BytesOf(**its, "other.a"), FloatBytes({2}));
}

TEST(CheckpointTest, WhatAFileIsShowsInItsContent) {
  const TempDir folder;
  const auto gguf = TensorFile::Open(folder.Write("x.safetensors", GgufWriter{}.Bytes()));
  EXPECT_TRUE(gguf.ok()) << gguf.status();
  const auto safetensors =
      TensorFile::Open(folder.Write("x.gguf", SafetensorsOf({{"a", {1}, {1}}})));
  EXPECT_TRUE(safetensors.ok()) << safetensors.status();
  for (const char* start : {"PK\x03\x04zip archive", "\x80\x02pickle opcodes"}) {
    const absl::Status pickled = TensorFile::Open(folder.Write("x.ckpt", start)).status();
    EXPECT_EQ(pickled.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(pickled.message()), HasSubstr("pickled"));
  }
  // A header of 128 bytes begins with the byte of a pickle.
  std::string header = R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})";
  header.resize(128, ' ');
  const auto padded =
      TensorFile::Open(folder.Write("x", kino::testing::SafetensorsBytes(header, "")));
  EXPECT_TRUE(padded.ok()) << padded.status();
  EXPECT_EQ(TensorFile::Open(folder.path() + "/none").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace kino::engine
