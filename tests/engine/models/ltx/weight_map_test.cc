// Original LTX-Video files against the component folders they were made from: every name, every
// byte, every config (weight_map_fixtures.py makes both, and holds the names against diffusers'
// converters).
#include "engine/models/ltx/weight_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/core/checkpoint.h"
#include "engine/core/json.h"
#include "engine/models/ltx/transformer_config.h"
#include "tests/support/fixture_folder.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace kino::engine {
namespace {

using ::kino::testing::FloatTensor;
using ::kino::testing::SafetensorsOf;
using ::kino::testing::TempDir;
using ::testing::HasSubstr;

// Written once per process.
const std::string& Fixtures() {
  static const FixtureFolder* const folder = [] {
    static FixtureFolder made;
    made.RunOracle("models/ltx/weight_map_fixtures.py", std::to_string(TestSeed()));
    return &made;
  }();
  return folder->path();
}

std::shared_ptr<const TensorFile> Open(const std::string& path) {
  auto file = TensorFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  return file.ok() ? *std::move(file) : nullptr;
}

std::string BytesOf(const TensorEntry& entry) {
  return std::string(reinterpret_cast<const char*>(entry.data), static_cast<size_t>(entry.bytes));
}

// The same names with the same bytes.
void ExpectSameTensors(const Checkpoint& got, const Checkpoint& expected) {
  for (const auto& [name, entry] : expected.tensors()) {
    const TensorEntry* found = got.Find(name);
    ASSERT_NE(found, nullptr) << name;
    EXPECT_EQ(BytesOf(*found), BytesOf(*entry)) << name;
    if (found->block == GgmlType::kNone) {
      EXPECT_EQ(found->shape, entry->shape) << name;
      EXPECT_EQ(found->dtype, entry->dtype) << name;
    }
  }
  EXPECT_EQ(got.tensors().size(), expected.tensors().size());
}

std::string TransformerSummary(const nlohmann::json& json) {
  const auto config = LtxTransformerConfig::FromJson(json, "config.json");
  if (!config.ok()) return config.status().ToString();
  return absl::StrCat(config->in_channels, " ", config->out_channels, " ",
                      config->num_attention_heads, " ", config->attention_head_dim, " ",
                      config->cross_attention_dim, " ", config->num_layers, " ",
                      config->caption_channels, " ", config->norm_eps, " ", config->attention_bias,
                      " ", config->attention_out_bias);
}

class LtxGenerationTest : public ::testing::TestWithParam<const char*> {
 protected:
  std::string Path(const std::string& rest) const {
    return absl::StrCat(Fixtures(), "/", GetParam(), rest);
  }
  nlohmann::json Config(const std::string& component) const {
    return *ReadJsonFile(Path("/" + component + "/config.json"));
  }
  std::shared_ptr<const Checkpoint> Folder(const std::string& component) const {
    auto opened = Checkpoint::Open(Path("/" + component), "");
    EXPECT_TRUE(opened.ok()) << opened.status();
    return *std::move(opened);
  }
};

TEST_P(LtxGenerationTest, SingleFileHoldsTheFoldersTransformer) {
  const auto file = Open(Path(".safetensors"));
  const nlohmann::json config = Config("transformer");
  const auto transformer = FindLtxTransformer(*file, &config);
  ASSERT_TRUE(transformer.ok()) << transformer.status();
  EXPECT_EQ(transformer->config, config);
  const auto checkpoint = Checkpoint::FromFile(file, transformer->map);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ExpectSameTensors(**checkpoint, *Folder("transformer"));
}

TEST_P(LtxGenerationTest, TransformerWithoutPrefixReadsAlike) {
  const auto file = Open(Path("-bare.safetensors"));
  // The number of heads is in this file's metadata.
  const auto transformer = FindLtxTransformer(*file, nullptr);
  ASSERT_TRUE(transformer.ok()) << transformer.status();
  EXPECT_EQ(TransformerSummary(transformer->config), TransformerSummary(Config("transformer")));
  const auto checkpoint = Checkpoint::OpenFile(Path("-bare.safetensors"), transformer->map);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ExpectSameTensors(**checkpoint, *Folder("transformer"));
}

TEST_P(LtxGenerationTest, GgufTransformerReadsAlike) {
  const auto file = Open(Path(".gguf"));
  const nlohmann::json config = Config("transformer");
  const auto transformer = FindLtxTransformer(*file, &config);
  ASSERT_TRUE(transformer.ok()) << transformer.status();
  EXPECT_EQ(transformer->config, config);
  const auto checkpoint = Checkpoint::FromFile(file, transformer->map);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const KeyMap same = {.name = "as stored", .map = [](std::string_view name, const TensorEntry&) {
                         return std::vector<MappedTensor>{{.name = std::string(name)}};
                       }};
  const auto stored = Checkpoint::OpenFile(Path("-gguf.safetensors"), same);
  ASSERT_TRUE(stored.ok()) << stored.status();
  ExpectSameTensors(**checkpoint, **stored);
  // Shapes are the weights', also of blocks.
  const auto folder = Folder("transformer");
  for (const auto& [name, entry] : folder->tensors()) {
    EXPECT_EQ((*checkpoint)->Find(name)->shape, entry->shape) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Generations, LtxGenerationTest,
                         ::testing::Values("0.9.0", "0.9.1", "0.9.5"));

TEST(LtxPublishedTest, ConfigsAreReadFromTheShapes) {
  for (const char* name : {"2b", "13b"}) {
    const auto file = Open(absl::StrCat(Fixtures(), "/published/", name, ".safetensors"));
    const auto expected = ReadJsonFile(absl::StrCat(Fixtures(), "/published/", name, ".json"));
    EXPECT_TRUE(expected.ok()) << expected.status();
    if (!expected.ok()) continue;
    const auto transformer = FindLtxTransformer(*file, nullptr);
    EXPECT_TRUE(transformer.ok()) << transformer.status();
    if (!transformer.ok()) continue;
    EXPECT_EQ(TransformerSummary(transformer->config), TransformerSummary(*expected)) << name;
  }
}

TEST(LtxPublishedTest, AFoldersConfigOfAnotherSizeIsNotTaken) {
  const auto small = ReadJsonFile(absl::StrCat(Fixtures(), "/published/2b.json"));
  ASSERT_TRUE(small.ok()) << small.status();
  const auto file = Open(absl::StrCat(Fixtures(), "/published/13b.safetensors"));
  const auto transformer = FindLtxTransformer(*file, &*small);
  ASSERT_TRUE(transformer.ok()) << transformer.status();
  EXPECT_EQ(transformer->config["num_layers"], 48);
  EXPECT_EQ(transformer->config["attention_head_dim"], 128);
}

// The least that says what a file is, and one tensor of a wrong shape or too many.
TEST(LtxWeightMapTest, WhatIsNoSuchModelIsRefused) {
  const TempDir folder;
  const auto open = [&folder](const std::vector<FloatTensor>& tensors) {
    return Open(folder.Write("file", SafetensorsOf(tensors)));
  };
  const auto other = open({{"double_blocks.0.weight", {1}, {1}}});
  EXPECT_EQ(FindLtxTransformer(*other, nullptr).status().code(), absl::StatusCode::kNotFound);

  std::vector<FloatTensor> tensors = {
      {"transformer_blocks.0.attn2.q_norm.weight", {6}, std::vector<float>(6)},
      {"patchify_proj.weight", {6, 2}, std::vector<float>(12)},
      {"caption_projection.linear_1.weight", {6, 3}, std::vector<float>(18)}};
  absl::Status status = FindLtxTransformer(*open(tensors), nullptr).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no tensor 'proj_out.weight'"));

  tensors.push_back({"proj_out.weight", {2, 6}, std::vector<float>(12)});
  status = FindLtxTransformer(*open(tensors), nullptr).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("width 6 and an unknown number of heads"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("transformer/config.json"));

  tensors.push_back({"audio_patchify_proj.weight", {1, 1}, {0}});
  EXPECT_EQ(FindLtxTransformer(*open(tensors), nullptr).status().code(),
            absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace kino::engine
