// Layers of tiny models as transformers and diffusers save them with a BitsAndBytesConfig
// (quant_fixtures.py), and what a broken file is told.
#include "engine/quant/bitsandbytes_checkpoint.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <set>

#include "engine/core/checkpoint.h"
#include "engine/core/json.h"
#include "tests/engine/quant/quant_cases.h"

namespace kino::engine {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::shared_ptr<const Checkpoint> OpenFixture(const std::string& folder) {
  auto checkpoint = Checkpoint::Open(absl::StrCat(QuantFixtures(), "/", folder), "");
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return *std::move(checkpoint);
}

bool IsQuantizationTensor(const std::string& name) {
  for (const char* part :
       {".absmax", ".quant_map", ".quant_state.", ".nested_", ".SCB", ".weight_format"}) {
    if (name.find(part) != std::string::npos) return true;
  }
  return false;
}

class SerializedTest : public ::testing::TestWithParam<std::tuple<const char*, const char*>> {
 protected:
  std::string scheme() const { return std::get<1>(GetParam()); }
  std::string folder() const {
    return absl::StrCat("serialized_", std::get<0>(GetParam()), "_", scheme());
  }
  c10::InferenceMode inference_mode_;
};

TEST_P(SerializedTest, EveryLayerDecodesBitEqualToTheLibrary) {
  const auto checkpoint = OpenFixture(folder());
  const auto config_json =
      ReadJsonFile(absl::StrCat(QuantFixtures(), "/", folder(), "/config.json"));
  ASSERT_TRUE(config_json.ok()) << config_json.status();
  const auto config = ReadBitsAndBytesConfig(*config_json, "config.json");
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_TRUE(config->has_value());
  EXPECT_EQ((*config)->llm_int8_threshold, scheme() == "int8" ? 5.0 : 6.0);

  const QuantCases decoded(absl::StrCat(folder(), "/decoded.safetensors"));
  const auto find = [&](const std::string& name) { return checkpoint->Find(name); };
  std::set<std::string> companions;
  int quantized = 0, plain = 0;
  for (const auto& [full_name, entry] : checkpoint->tensors()) {
    if (!full_name.ends_with(".weight")) continue;
    const std::string name = full_name.substr(0, full_name.size() - 7);
    const auto read = ReadBitsAndBytesLinear(name, find, **config);
    EXPECT_TRUE(read.ok()) << read.status();
    if (!read.ok()) continue;
    EXPECT_EQ(read->has_value(), decoded.Has(name)) << name;
    if (read->has_value() != decoded.Has(name)) continue;
    if (!read->has_value()) {
      ++plain;
      continue;
    }
    ++quantized;
    const SerializedLinear& layer = **read;
    EXPECT_EQ(layer.format->name(), scheme());
    const at::Tensor expected = decoded.Get(name);
    EXPECT_EQ(at::IntArrayRef(layer.shape), expected.sizes()) << name;
    EXPECT_TRUE(at::equal(layer.format->Decode(layer.parts, layer.shape, at::kFloat), expected))
        << name;
    // Views, not copies.
    EXPECT_EQ(layer.parts[0].const_data_ptr(), static_cast<const void*>(entry->data)) << name;
    companions.insert(layer.companions.begin(), layer.companions.end());
  }
  EXPECT_GT(quantized, 8);
  EXPECT_GT(plain, 1);
  for (const auto& [name, entry] : checkpoint->tensors())
    EXPECT_EQ(companions.contains(name), IsQuantizationTensor(name)) << name;
}

INSTANTIATE_TEST_SUITE_P(Models, SerializedTest,
                         ::testing::Combine(::testing::Values("t5", "ltx"),
                                            ::testing::Values("nf4", "nf4_dq", "fp4", "fp4_dq",
                                                              "int8")),
                         [](const auto& model) {
                           return absl::StrCat(std::get<0>(model.param), "_",
                                               std::get<1>(model.param));
                         });

TEST(SerializedDefaultsTest, TransformersKeepsWoPlainAndDiffusersQuantizesEveryLinearOfLtx) {
  const auto t5 = OpenFixture("serialized_t5_nf4");
  EXPECT_EQ(t5->Find("encoder.block.0.layer.1.DenseReluDense.wo.weight")->dtype, DType::kF32);
  EXPECT_EQ(t5->Find("encoder.block.0.layer.1.DenseReluDense.wi_1.weight")->dtype, DType::kU8);
  const auto ltx = OpenFixture("serialized_ltx_nf4");
  for (const char* name :
       {"proj_in", "proj_out", "time_embed.linear", "caption_projection.linear_1",
        "time_embed.emb.timestep_embedder.linear_1"}) {
    EXPECT_EQ(ltx->Find(absl::StrCat(name, ".weight"))->dtype, DType::kU8) << name;
  }
}

// One serialized layer whose tensors a test may spoil.
class BrokenLayer {
 public:
  explicit BrokenLayer(const std::string& folder) : checkpoint_(OpenFixture(folder)) {
    for (const auto& [name, entry] : checkpoint_->tensors()) {
      if (name.starts_with(kLayer)) entries_[name.substr(kLayer.size())] = *entry;
    }
  }
  TensorEntry& operator[](const std::string& suffix) {
    EXPECT_TRUE(entries_.contains(suffix)) << suffix;
    return entries_[suffix];
  }
  void Remove(const std::string& suffix) { entries_.erase(suffix); }
  void SetBytes(const std::string& suffix, const std::string& bytes) {
    bytes_.push_back(std::make_unique<std::string>(bytes));
    TensorEntry& entry = (*this)[suffix];
    entry.data = reinterpret_cast<const std::byte*>(bytes_.back()->data());
    entry.bytes = static_cast<int64_t>(bytes.size());
    entry.shape = {entry.bytes / DTypeSize(entry.dtype)};
  }
  std::string Bytes(const std::string& suffix) {
    const TensorEntry& entry = (*this)[suffix];
    return {reinterpret_cast<const char*>(entry.data), static_cast<size_t>(entry.bytes)};
  }
  // The state's JSON with one key replaced.
  void SetState(const std::string& suffix, const char* key, const nlohmann::json& value) {
    nlohmann::json state = nlohmann::json::parse(Bytes(suffix));
    state[key] = value;
    SetBytes(suffix, state.dump());
  }

  absl::StatusOr<std::optional<SerializedLinear>> Read() const {
    return ReadBitsAndBytesLinear(
        std::string(kLayer),
        [&](const std::string& name) -> const TensorEntry* {
          const auto found = entries_.find(name.substr(kLayer.size()));
          return found == entries_.end() ? nullptr : &found->second;
        },
        BitsAndBytesConfig());
  }
  // What is said of it.
  std::string Refusal(absl::StatusCode code = absl::StatusCode::kInvalidArgument) const {
    const auto read = Read();
    EXPECT_FALSE(read.ok());
    EXPECT_EQ(read.status().code(), code) << read.status();
    return std::string(read.status().message());
  }

 private:
  static constexpr std::string_view kLayer = "transformer_blocks.0.attn1.to_q";
  std::shared_ptr<const Checkpoint> checkpoint_;
  std::map<std::string, TensorEntry> entries_;
  std::vector<std::unique_ptr<std::string>> bytes_;
};

constexpr char kState[] = ".weight.quant_state.bitsandbytes__nf4";
constexpr char kFolder[] = "serialized_ltx_nf4_dq";

TEST(BrokenBitsAndBytesTest, WhatIsMissingIsNamed) {
  for (const char* suffix : {".weight.absmax", ".weight.quant_map", ".weight.nested_absmax",
                             ".weight.nested_quant_map"}) {
    BrokenLayer layer(kFolder);
    layer.Remove(suffix);
    EXPECT_THAT(layer.Refusal(), HasSubstr(absl::StrCat("to_q", suffix, "'")));
  }
  BrokenLayer stateless(kFolder);
  stateless.Remove(kState);
  EXPECT_THAT(stateless.Refusal(), HasSubstr("quant_state"));
  BrokenLayer int8("serialized_ltx_int8");
  int8.Remove(".SCB");
  EXPECT_THAT(int8.Refusal(), HasSubstr("to_q.SCB'"));
  BrokenLayer absent(kFolder);
  absent.Remove(".weight");
  const auto read = absent.Read();
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_FALSE(read->has_value());
}

TEST(BrokenBitsAndBytesTest, SizesAndTypesAreChecked) {
  BrokenLayer weight(kFolder);
  weight.SetBytes(".weight", std::string(2047, '\0'));
  EXPECT_THAT(weight.Refusal(), AllOf(HasSubstr("U8 [2047]"), HasSubstr("2048 bytes")));
  BrokenLayer absmax(kFolder);
  absmax.SetBytes(".weight.absmax", std::string(63, '\0'));
  EXPECT_THAT(absmax.Refusal(), AllOf(HasSubstr("absmax"), HasSubstr("64 elements")));
  BrokenLayer plain_absmax(kFolder);
  plain_absmax[".weight.absmax"].dtype = DType::kF32;
  EXPECT_THAT(plain_absmax.Refusal(), AllOf(HasSubstr("F32"), HasSubstr("expected U8")));
  BrokenLayer map(kFolder);
  std::string values = map.Bytes(".weight.quant_map");
  const float other = 0.25f;
  std::memcpy(values.data() + 12, &other, 4);
  map.SetBytes(".weight.quant_map", values);
  EXPECT_THAT(map.Refusal(), AllOf(HasSubstr("0.25"), HasSubstr("code 3")));
  BrokenLayer scales("serialized_ltx_int8");
  scales.SetBytes(".SCB", std::string(4, '\0'));
  EXPECT_THAT(scales.Refusal(), AllOf(HasSubstr("SCB"), HasSubstr("64 elements")));
  BrokenLayer format("serialized_ltx_int8");
  format.SetBytes(".weight_format", "\x02");
  EXPECT_THAT(format.Refusal(absl::StatusCode::kUnimplemented), HasSubstr("is 2"));
  BrokenLayer dtype("serialized_ltx_int8");
  dtype[".weight"].dtype = DType::kU8;
  EXPECT_THAT(dtype.Refusal(), HasSubstr("expected I8 [out, in]"));
}

TEST(BrokenBitsAndBytesTest, TheStateIsChecked) {
  const auto refused = [](const char* key, const nlohmann::json& value,
                          absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
    BrokenLayer layer(kFolder);
    layer.SetState(kState, key, value);
    return layer.Refusal(code);
  };
  EXPECT_THAT(refused("blocksize", 48), HasSubstr("48"));
  EXPECT_THAT(refused("blocksize", "64"), HasSubstr("blocksize"));
  EXPECT_THAT(refused("blocksize", 8192), HasSubstr("8192"));
  EXPECT_THAT(refused("quant_type", "fp4"), HasSubstr("'fp4', expected 'nf4'"));
  EXPECT_THAT(refused("shape", nlohmann::json::array({64})), HasSubstr("[out, in]"));
  EXPECT_THAT(refused("shape", nlohmann::json::array({-64, 64})), HasSubstr("-64"));
  EXPECT_THAT(refused("shape", nlohmann::json::array({1e30, 64})), HasSubstr("shape"));
  EXPECT_THAT(refused("shape", nlohmann::json::array({1 << 30, 1 << 30})), HasSubstr("bytes"));
  EXPECT_THAT(refused("shape", nlohmann::json::array({64, 65})), HasSubstr("2080 bytes"));
  EXPECT_THAT(refused("nested_blocksize", 64, absl::StatusCode::kUnimplemented), HasSubstr("64"));
  BrokenLayer text(kFolder);
  text.SetBytes(kState, "[1, 2");
  EXPECT_THAT(text.Refusal(), HasSubstr("no JSON object"));
  BrokenLayer empty(kFolder);
  empty.SetBytes(kState, "");
  EXPECT_THAT(empty.Refusal(), HasSubstr("no JSON object"));
}

TEST(BitsAndBytesCheckpointTest, MisalignedScalesAreCopied) {
  const c10::InferenceMode inference_mode;
  BrokenLayer layer("serialized_ltx_nf4");
  const auto expected = layer.Read();
  ASSERT_TRUE(expected.ok()) << expected.status();
  const std::string shifted = absl::StrCat("x", layer.Bytes(".weight.absmax"));
  TensorEntry& absmax = layer[".weight.absmax"];
  absmax.data = reinterpret_cast<const std::byte*>(shifted.data()) + 1;
  const auto got = layer.Read();
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_NE((*got)->parts[1].const_data_ptr(), static_cast<const void*>(absmax.data));
  EXPECT_TRUE(at::equal((*got)->parts[1], (*expected)->parts[1]));
}

TEST(BitsAndBytesCheckpointTest, CodesInAnotherContainerAreRead) {
  BrokenLayer layer(kFolder);
  TensorEntry& weight = layer[".weight"];
  weight.dtype = DType::kBF16;  // bnb_4bit_quant_storage
  weight.shape = {weight.bytes / 2, 1};
  const auto read = layer.Read();
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ((*read)->parts[0].scalar_type(), at::kByte);
}

TEST(BitsAndBytesConfigTest, OtherLibrariesAreRefusedByName) {
  const auto read = [](const char* text) {
    return ReadBitsAndBytesConfig(nlohmann::json::parse(text), "transformer/config.json");
  };
  EXPECT_FALSE(read(R"({})")->has_value());
  EXPECT_FALSE(read(R"({"quantization_config": null})")->has_value());
  EXPECT_EQ((*read(R"({"quantization_config": {"load_in_8bit": true}})"))->llm_int8_threshold, 6.0);
  const auto torchao = read(R"({"quantization_config": {"quant_method": "torchao"}})");
  EXPECT_EQ(torchao.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(torchao.status().message()),
              AllOf(HasSubstr("transformer/config.json"), HasSubstr("'torchao'")));
  EXPECT_EQ(read(R"({"quantization_config": {}})").status().code(),
            absl::StatusCode::kUnimplemented);
  for (
      const char* text :
      {R"({"quantization_config": 3})",
       R"({"quantization_config": {"quant_method": "bitsandbytes", "llm_int8_threshold": -1}})",
       R"({"quantization_config": {"quant_method": "bitsandbytes", "llm_int8_threshold": "6"}})"}) {
    EXPECT_EQ(read(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace kino::engine
