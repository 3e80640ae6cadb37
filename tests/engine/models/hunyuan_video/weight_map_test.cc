// Original HunyuanVideo files against the component folders they were made from
// (transformer_fixtures.py, which holds the names against diffusers' converter).
#include "engine/models/hunyuan_video/weight_map.h"

#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>

#include "engine/core/json.h"
#include "tests/engine/models/hunyuan_video/transformer_cases.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace kino::engine {
namespace {

using Config = HunyuanVideoTransformerConfig;
using ::kino::testing::FloatTensor;
using ::kino::testing::SafetensorsOf;
using ::kino::testing::TempDir;
using ::testing::HasSubstr;

std::shared_ptr<const TensorFile> Open(const std::string& path) {
  auto file = TensorFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  return file.ok() ? *std::move(file) : nullptr;
}

std::string BytesOf(const TensorEntry& entry) {
  return std::string(reinterpret_cast<const char*>(entry.data), static_cast<size_t>(entry.bytes));
}

nlohmann::json JsonOf(const std::string& path) {
  auto json = ReadJsonFile(HunyuanFixtures() + "/" + path);
  EXPECT_TRUE(json.ok()) << json.status();
  return json.ok() ? *json : nlohmann::json();
}

// Of a folder, in the layout of an original file.
Config ConfigOf(const std::string& path) {
  auto config = Config::FromJson(JsonOf(path), path);
  EXPECT_TRUE(config.ok()) << config.status();
  config->original_layout = true;
  return *config;
}

class HunyuanSingleFileTest : public ::testing::TestWithParam<const char*> {
 protected:
  HunyuanSingleFileTest() { at::set_num_threads(1); }
  const std::string path_ = absl::StrCat("single/", GetParam(), ".safetensors");
};

TEST_P(HunyuanSingleFileTest, HoldsTheFoldersTransformer) {
  const auto file = Open(HunyuanFixtures() + "/" + path_);
  const nlohmann::json folder_config = JsonOf("t2v/config.json");
  const auto found = FindHunyuanVideoTransformer(*file, &folder_config);
  ASSERT_TRUE(found.ok()) << found.status();
  const auto config = Config::FromJson(found->config, path_);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(*config, ConfigOf("t2v/config.json"));
  const auto mapped = Checkpoint::FromFile(file, found->map);
  ASSERT_TRUE(mapped.ok()) << mapped.status();
  const auto folder = Checkpoint::Open(HunyuanFixtures() + "/t2v", "");
  ASSERT_TRUE(folder.ok()) << folder.status();
  for (const auto& [name, entry] : (*folder)->tensors()) {
    const TensorEntry* of_file = (*mapped)->Find(name);
    ASSERT_NE(of_file, nullptr) << name;
    EXPECT_EQ(of_file->shape, entry->shape) << name;
    std::string expected = BytesOf(*entry);
    // Tencent's halves are the other way round.
    if (name.starts_with("norm_out."))
      expected = expected.substr(expected.size() / 2) + expected.substr(0, expected.size() / 2);
    EXPECT_EQ(BytesOf(*of_file), expected) << name;
  }
  EXPECT_EQ((*mapped)->tensors().size(), (*folder)->tensors().size());
}

TEST_P(HunyuanSingleFileTest, ComputesTheFoldersBits) {
  const HunyuanCase two("t2v/cases.safetensors", "two");
  const at::Tensor expected = two.Run(*LoadHunyuan("t2v"));
  EXPECT_TRUE(at::equal(two.Run(*LoadOriginalHunyuan(path_, "t2v")), expected));
  const WeightPlan leaf = {.residency = *ResidencyPolicy::Parse("leaf")};
  EXPECT_TRUE(at::equal(two.Run(*LoadOriginalHunyuan(path_, "t2v", leaf)), expected));
}

INSTANTIATE_TEST_SUITE_P(Styles, HunyuanSingleFileTest,
                         ::testing::Values("tencent", "prefixed", "comfy"));

class HunyuanGgufTest : public ::testing::TestWithParam<const char*> {};

TEST_P(HunyuanGgufTest, ComputesWhatDiffusersMakesOfTheDecodedWeights) {
  at::set_num_threads(1);
  const std::string name = absl::StrCat("wide-", GetParam());
  const HunyuanCase one(name + ".safetensors", "one");
  const auto transformer = LoadOriginalHunyuan(name + ".gguf", "wide");
  int64_t quantized = 0;
  for (const auto& weight : transformer->weights().weights())
    quantized += weight->file_format != nullptr ? 1 : 0;
  // Eleven layers of the block of two streams (the fused ones are three each), six of that of one,
  // seven of the refiner's block, ten around them; a time's sinusoids are 256, too.
  EXPECT_GE(quantized, 30);
  const at::Tensor resident = one.Run(*transformer);
  // Sums of 1024 products, of decoded weights of a few times the spread.
  EXPECT_LT(MaxError(resident, one.Get("expected")), 3e-5);
  const WeightPlan leaf = {.residency = *ResidencyPolicy::Parse("leaf")};
  EXPECT_TRUE(at::equal(one.Run(*LoadOriginalHunyuan(name + ".gguf", "wide", leaf)), resident));
}

INSTANTIATE_TEST_SUITE_P(Types, HunyuanGgufTest, ::testing::Values("Q8_0", "Q4_K"));

TEST(HunyuanPublishedTest, ConfigsAreReadFromTheShapes) {
  for (const char* name : {"t2v", "i2v_33ch", "skyreels_i2v"}) {
    const auto file = Open(absl::StrCat(HunyuanFixtures(), "/published/", name, ".safetensors"));
    const auto found = FindHunyuanVideoTransformer(*file, nullptr);
    EXPECT_TRUE(found.ok()) << found.status();
    if (!found.ok()) continue;
    const auto config = Config::FromJson(found->config, name);
    EXPECT_TRUE(config.ok()) << config.status();
    if (!config.ok()) continue;
    EXPECT_EQ(*config, ConfigOf(absl::StrCat("published/", name, ".json"))) << name;
  }
}

// Shapes do not tell that tokens are replaced, nor the frequencies of positions.
TEST(HunyuanPublishedTest, AFoldersConfigOfTheSameSizesTellsTheRest) {
  const auto file = Open(HunyuanFixtures() + "/single/tencent.safetensors");
  nlohmann::json folder = JsonOf("token_replace/config.json");
  folder["rope_theta"] = 100.0;
  const auto found = FindHunyuanVideoTransformer(*file, &folder);
  ASSERT_TRUE(found.ok()) << found.status();
  Config expected = ConfigOf("token_replace/config.json");
  expected.rope_theta = 100.0;
  const auto config = Config::FromJson(found->config, "");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(*config, expected);
}

TEST(HunyuanPublishedTest, AFoldersConfigOfOtherSizesIsNotTaken) {
  const auto file = Open(HunyuanFixtures() + "/published/t2v.safetensors");
  nlohmann::json other = JsonOf("published/i2v_33ch.json");
  other["rope_theta"] = 10.0;
  const auto found = FindHunyuanVideoTransformer(*file, &other);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(*Config::FromJson(found->config, ""), ConfigOf("published/t2v.json"));
}

TEST(HunyuanPublishedTest, AHeadOfAnotherWidthNeedsAFoldersConfig) {
  const auto files = ComponentFiles::OpenOriginal(HunyuanFixtures() + "/single/tencent.safetensors",
                                                  "", FindHunyuanVideoTransformer);
  ASSERT_TRUE(files.ok()) << files.status();
  const absl::Status status = Config::FromJson(files->config, files->config_path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("rope_axes_dim"));
}

TEST(HunyuanPublishedTest, AFileUnderDiffusersNamesNeedsAFoldersConfig) {
  const std::string path = HunyuanFixtures() + "/t2v/diffusion_pytorch_model.safetensors";
  const HunyuanCase two("t2v/cases.safetensors", "two");
  const auto transformer = LoadOriginalHunyuan("t2v/diffusion_pytorch_model.safetensors", "t2v");
  EXPECT_TRUE(at::equal(two.Run(*transformer), two.Run(*LoadHunyuan("t2v"))));
  const absl::Status status =
      ComponentFiles::OpenOriginal(path, "", FindHunyuanVideoTransformer).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("config.json"));
}

class HunyuanBrokenFileTest : public ::testing::Test {
 protected:
  // Every tensor of the small file, changed by `change`.
  absl::Status Load(const std::function<void(std::vector<FloatTensor>&)>& change) {
    std::vector<FloatTensor> tensors;
    const auto file = Open(HunyuanFixtures() + "/single/tencent.safetensors");
    for (const auto& [name, entry] : file->tensors()) {
      std::vector<float> values(static_cast<size_t>(entry.bytes) / sizeof(float));
      tensors.push_back({name, entry.shape, std::move(values)});
    }
    change(tensors);
    const std::string path = folder_.Write("file.safetensors", SafetensorsOf(tensors));
    const auto files =
        ComponentFiles::OpenOriginal(path, HunyuanFixtures() + "/t2v", FindHunyuanVideoTransformer);
    if (!files.ok()) return files.status();
    return MakeComponent<HunyuanVideoTransformer>(*files, at::kFloat, at::kCPU).status();
  }
  static FloatTensor& Named(std::vector<FloatTensor>& tensors, const std::string& name) {
    for (FloatTensor& tensor : tensors) {
      if (tensor.name == name) return tensor;
    }
    ADD_FAILURE() << "no " << name;
    return tensors.front();
  }
  static void Reshape(FloatTensor& tensor, std::vector<int64_t> shape) {
    int64_t count = 1;
    for (const int64_t extent : shape) count *= extent;
    tensor.shape = std::move(shape);
    tensor.values.assign(static_cast<size_t>(count), 0.0f);
  }

  TempDir folder_;
};

TEST_F(HunyuanBrokenFileTest, TheUnbrokenOneIsTaken) {
  EXPECT_TRUE(Load([](auto&) {}).ok());
}

TEST_F(HunyuanBrokenFileTest, OfAnotherModelIsNotFound) {
  const auto status = Load([](auto& tensors) {
    tensors = {{"transformer_blocks.0.attn1.to_q.weight", {1, 1}, {0}}};
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("HunyuanVideo transformer"));
}

TEST_F(HunyuanBrokenFileTest, IsRefusedByName) {
  struct Broken {
    const char* tensor;
    std::vector<int64_t> shape;  // empty: left out
    const char* says;
  };
  const char kMark[] = "txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias";
  for (const Broken& broken : std::vector<Broken>{
           {"final_layer.linear.weight", {}, "proj_out.weight"},
           {"double_blocks.0.img_attn_q_norm.weight", {}, "attn.norm_q.weight"},
           {"double_blocks.1.txt_attn_qkv.weight", {}, "transformer_blocks.1.attn.add_q_proj"},
           {"double_blocks.1.img_attn_qkv.weight", {97, 32}, "to_v.weight is [33, 32]"},
           {"double_blocks.1.img_attn_qkv.weight", {40, 32}, "rows"},
           {"double_blocks.1.img_attn_qkv.bias", {1}, "rows"},
           {"single_blocks.1.linear1.weight", {90, 32}, "rows"},
           {"single_blocks.2.linear1.weight", {225, 32}, "proj_mlp.weight is [129, 32]"},
           {"single_blocks.2.linear2.weight", {32, 161}, "proj_out.weight is [32, 161]"},
           {"img_in.proj.weight", {32, 16}, "x_embedder.proj.weight"},
           {"img_in.proj.weight", {32, 4, 2, 2, 2}, "patch_size_t 2"},
           {"txt_in.input_embedder.weight", {32}, "context_embedder.proj_in.weight"},
           {kMark, {2}, "head"},
           {kMark, {66}, "rope_axes_dim"}}) {
    const absl::Status status = Load([&](std::vector<FloatTensor>& tensors) {
      if (broken.shape.empty()) {
        std::erase_if(tensors, [&](const FloatTensor& t) { return t.name == broken.tensor; });
      } else {
        Reshape(Named(tensors, broken.tensor), broken.shape);
      }
    });
    EXPECT_EQ(status.code(), std::string(broken.says).starts_with("patch_size_t")
                                 ? absl::StatusCode::kUnimplemented
                                 : absl::StatusCode::kInvalidArgument)
        << broken.tensor << " " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(broken.says)) << broken.tensor;
  }
}

// The scale of a fused layer is no row of it.
TEST_F(HunyuanBrokenFileTest, Fp8WithScalesIsCalledByItsName) {
  for (const char* name : {"double_blocks.0.img_attn.qkv.scale_weight",
                           "single_blocks.0.linear1.scale_weight", "scaled_fp8"}) {
    const absl::Status status = Load([name](std::vector<FloatTensor>& tensors) {
      tensors.push_back({name, {1}, {1}});
    });
    EXPECT_THAT(std::string(status.message()), HasSubstr("fp8 weights with scales")) << name;
  }
}

// HunyuanVideo 1.5's files have the mark as well.
TEST_F(HunyuanBrokenFileTest, TensorsOfAnotherModelAreNotPassedOver) {
  const absl::Status status = Load([](std::vector<FloatTensor>& tensors) {
    tensors.push_back({"byt5_in.layernorm.weight", {4}, {1, 1, 1, 1}});
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("byt5_in.layernorm.weight"));
}

}  // namespace
}  // namespace kino::engine
