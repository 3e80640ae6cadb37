// The LLaMA encoder against transformers, on small random models (encoder_fixtures.py).
#include "engine/text/llama_encoder.h"

#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>

#include "engine/core/status_bridge.h"
#include "engine/text/encoder_files.h"
#include "tests/engine/text/encoder_cases.h"

namespace kino::engine {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int kImageToken = 5;  // of the fixtures' LLaVAs

std::vector<LlamaPrompt> Prompts(const EncoderCases& cases, const std::string& suffix = "") {
  std::vector<LlamaPrompt> prompts;
  for (const at::Tensor& ids : cases.All("ids")) prompts.push_back({.ids = ids});
  if (!cases.Has("features_0")) return prompts;
  for (size_t i = 0; i < prompts.size(); ++i)
    prompts[i].images = cases[absl::StrCat("features_", i, suffix)];
  return prompts;
}

void ExpectReference(const LlamaEncoder& encoder, const EncoderCases& cases) {
  const c10::InferenceMode inference;
  ExpectFloats(encoder.Forward(Prompts(cases), {}), cases.All("states"));
}

absl::Status ForwardStatus(const LlamaEncoder& encoder, const std::vector<LlamaPrompt>& prompts) {
  return RunGuarded([&] {
    encoder.Forward(prompts, {});
    return absl::OkStatus();
  });
}

class LlamaEncoderTest : public ::testing::TestWithParam<const char*> {
 protected:
  LlamaEncoderTest() { at::set_num_threads(1); }  // Bit-identity is promised on one thread.
};

TEST_P(LlamaEncoderTest, FloatsAreThoseOfTransformers) {
  const auto encoder = EncoderIn<LlamaEncoder>(GetParam());
  ExpectReference(*encoder, EncoderCases(GetParam()));
}

TEST_P(LlamaEncoderTest, BFloat16IsRoundedWhereTransformersRounds) {
  const auto encoder = EncoderIn<LlamaEncoder>(GetParam(), at::kBFloat16);
  const EncoderCases cases(GetParam());
  const c10::InferenceMode inference;
  const std::vector<at::Tensor> got = encoder->Forward(Prompts(cases, "_bfloat16"), {});
  ExpectRoundedAlike(got, cases.All("states", "_bfloat16"), cases.All("states"));
}

INSTANTIATE_TEST_SUITE_P(Configs, LlamaEncoderTest,
                         ::testing::Values("llama", "llama_odd", "llama_all_heads", "llama_linear",
                                           "llama_llama3", "llama_of_two", "llama_wide",
                                           "llama_causal", "llava", "llava_full", "llava_first"),
                         [](const auto& config) { return std::string(config.param); });

TEST_F(LlamaEncoderTest, BothAgesOfLlavasNamesAreRead) {
  const EncoderCases cases("llava");
  for (const char* age : {"llava_4", "llava_5"}) {
    SCOPED_TRACE(age);
    const auto encoder = EncoderIn<LlamaEncoder>(age);
    ExpectReference(*encoder, cases);
  }
}

TEST_F(LlamaEncoderTest, BothAgesOfRotaryKeysAreRead) {
  for (const char* name : {"llama", "llama_linear", "llama_llama3"}) {
    SCOPED_TRACE(name);
    nlohmann::json config = ConfigIn(name);
    nlohmann::json rope = config["rope_parameters"];
    config.erase("rope_parameters");
    config["rope_theta"] = rope["rope_theta"];
    rope.erase("rope_theta");
    config["rope_scaling"] = nullptr;
    if (rope["rope_type"] == "linear")
      config["rope_scaling"] = {{"type", "linear"}, {"factor", rope["factor"]}};
    if (rope["rope_type"] == "llama3") config["rope_scaling"] = rope;
    const auto encoder = Encoder<LlamaEncoder>(WithConfig(name, config));
    ExpectReference(*encoder, EncoderCases(name));
  }
}

TEST_F(LlamaEncoderTest, APromptHasTheSameBitsWhateverItGoesAlongWith) {
  const auto encoder = EncoderIn<LlamaEncoder>("llama");
  const c10::InferenceMode inference;
  const std::vector<LlamaPrompt> prompts = Prompts(EncoderCases("llama"));
  const std::vector<at::Tensor> together = encoder->Forward(prompts, {});
  for (size_t i = 0; i < prompts.size(); ++i)
    EXPECT_TRUE(at::equal(encoder->Forward({prompts[i]}, {})[0], together[i])) << i;
  EXPECT_TRUE(encoder->Forward({}, {}).empty());
}

TEST_F(LlamaEncoderTest, TheNumberOfSkippedLayersIsTheFamilys) {
  nlohmann::json config = ConfigIn("llama");
  const auto two = EncoderIn<LlamaEncoder>("llama");
  config["num_hidden_layers_to_skip"] = 1;
  const auto one = Encoder<LlamaEncoder>(WithConfig("llama", config));
  EXPECT_EQ(two->config().layers_run(), 2);
  EXPECT_EQ(one->config().layers_run(), 3);
  EXPECT_TRUE(WeightsOf(*one).contains("layers.2.mlp.up_proj.weight"));
  for (const int wrong : {0, 5, -1}) {
    config["num_hidden_layers_to_skip"] = wrong;
    const absl::Status status = TryEncoder<LlamaEncoder>(WithConfig("llama", config)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << wrong;
    EXPECT_THAT(std::string(status.message()), HasSubstr("num_hidden_layers_to_skip"));
  }
}

TEST_F(LlamaEncoderTest, SkippedLayersAreNotHeldAndAllOthersAreRead) {
  for (const char* name : {"llama", "llama_odd", "llava"}) {
    SCOPED_TRACE(name);
    const auto encoder = EncoderIn<LlamaEncoder>(name);
    const std::set<std::string> held = WeightsOf(*encoder);
    for (const std::string& weight : held) {
      EXPECT_EQ(weight.find(absl::StrCat("layers.", encoder->config().layers_run(), ".")),
                std::string::npos)
          << weight;
    }
    ReadWeights audit;
    encoder->set_audit(&audit);
    const c10::InferenceMode inference;
    encoder->Forward(Prompts(EncoderCases(name)), {});
    encoder->set_audit(nullptr);
    EXPECT_EQ(audit.names(), held);
  }
}

TEST_F(LlamaEncoderTest, EveryPolicyGivesTheSameBits) {
  const EncoderCases cases("llama_odd");
  const c10::InferenceMode inference;
  const std::vector<at::Tensor> expected =
      EncoderIn<LlamaEncoder>("llama_odd")->Forward(Prompts(cases), {});
  Residency::set_poison_released(true);
  for (const char* offload : kEveryOffload) {
    const auto encoder = EncoderIn<LlamaEncoder>("llama_odd", at::kFloat,
                                                 {.residency = *ResidencyPolicy::Parse(offload)});
    for (int pass = 0; pass < 2; ++pass) {
      const std::vector<at::Tensor> got = encoder->Forward(Prompts(cases), {});
      for (size_t i = 0; i < got.size(); ++i)
        EXPECT_TRUE(at::equal(got[i], expected[i])) << offload << ", pass " << pass << ", " << i;
    }
  }
  Residency::set_poison_released(false);
}

// What a form may cost, of the states' mean; measured 0.15 with 4 bits, 0.05 to 0.06 with fp8, 0.02
// with 8 bits.
TEST_F(LlamaEncoderTest, EveryFormIsTakenByTheMatrices) {
  const EncoderCases cases("llama_wide");
  const std::vector<at::Tensor> expected = cases.All("states");
  std::vector<at::Tensor> nothing;
  for (const at::Tensor& states : expected) nothing.push_back(at::zeros_like(states));
  const double scale = MeanDifference(expected, nothing);
  const c10::InferenceMode inference;
  for (const auto& [plan, most] :
       {std::pair{WeightPlan{.residency = {}, .quantize = QuantScheme::kNf4}, 0.25},
        {WeightPlan{.residency = {}, .quantize = QuantScheme::kNf4Dq}, 0.25},
        {WeightPlan{.residency = {}, .quantize = QuantScheme::kInt8}, 0.05},
        {WeightPlan{.residency = {}, .quantize = QuantScheme::kFp8Wo}, 0.08},
        {WeightPlan{.residency = {}, .quantize = QuantScheme::kQ4_0}, 0.25},
        {WeightPlan{.residency = {}, .storage_dtype = DType::kF8E4M3}, 0.08},
        {WeightPlan{.residency = *ResidencyPolicy::Parse("block:1"), .quantize = QuantScheme::kNf4},
         0.25}}) {
    SCOPED_TRACE(plan.FormatKey());
    const auto encoder = EncoderIn<LlamaEncoder>("llama_wide", at::kFloat, plan);
    const double off = MeanDifference(encoder->Forward(Prompts(cases), {}), expected) / scale;
    std::printf("%s: off by %g of the mean\n", plan.FormatKey().c_str(), off);
    EXPECT_GT(off, 0);
    EXPECT_LT(off, most);
    int matrices = 0;
    for (const auto& weight : encoder->weights().weights()) {
      matrices += weight->is_matrix ? 1 : 0;
      const bool is_norm = weight->name.find("norm") != std::string::npos;
      if (plan.quantize == QuantScheme::kNone) {
        EXPECT_EQ(weight->stored_dtype == at::kFloat, is_norm) << weight->name;
      } else {
        EXPECT_EQ(weight->format != nullptr, weight->is_matrix) << weight->name;
      }
    }
    EXPECT_EQ(matrices, 2 * 7);
  }
}

TEST_F(LlamaEncoderTest, ASingleFileIsAFolder) {
  const std::string path = EncoderFolder("llama_single") + "/llama.safetensors";
  const auto encoder = Encoder<LlamaEncoder>(
      ComponentFiles::OpenOriginal(path, EncoderFolder("llama"), FindLlamaEncoder));
  ExpectReference(*encoder, EncoderCases("llama"));
}

TEST_F(LlamaEncoderTest, ASingleFileWithoutAFolderIsLlama3) {
  const auto file = TensorFile::Open(EncoderFolder("llama_single") + "/llama.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  const auto found = FindLlamaEncoder(**file, nullptr);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->config["head_dim"], 128);
  EXPECT_EQ(found->config["rope_theta"], 500000.0);
  EXPECT_EQ(found->config["rms_norm_eps"], 1e-5);
  EXPECT_EQ(found->config["vocab_size"], 97);
  EXPECT_EQ(found->config["hidden_size"], 48);
  EXPECT_EQ(found->config["intermediate_size"], 56);
  EXPECT_EQ(found->config["num_hidden_layers"], 4);
}

TEST_F(LlamaEncoderTest, ASingleFileInALlavasPlaceTakesImages) {
  const std::string path = EncoderFolder("llama_single") + "/llama.safetensors";
  const auto encoder = Encoder<LlamaEncoder>(
      ComponentFiles::OpenOriginal(path, EncoderFolder("llava"), FindLlamaEncoder));
  EXPECT_EQ(encoder->config().image_token_index, kImageToken);
  EXPECT_EQ(encoder->config().num_attention_heads, 6);
}

TEST_F(LlamaEncoderTest, OtherComponentsFilesHoldNone) {
  const absl::Status status =
      ComponentFiles::OpenOriginal(EncoderFolder("clip_single") + "/clip.safetensors", "",
                                   FindLlamaEncoder)
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("holds no LLaMA"));
}

// llama.cpp stores the rows of q and k in another order.
TEST_F(LlamaEncoderTest, GgufIsReadAsItIsWritten) {
  for (const char* name : {"gguf", "gguf_q8"}) {
    SCOPED_TRACE(name);
    const std::string path = EncoderFolder(name) + "/llama.gguf";
    // Whatever the folder says: the file says all of it.
    for (const std::string& folder : {std::string(), EncoderFolder("llama_odd")}) {
      const auto encoder =
          Encoder<LlamaEncoder>(ComponentFiles::OpenOriginal(path, folder, FindLlamaEncoder));
      ExpectReference(*encoder, EncoderCases(name));
    }
    const auto in_llava = Encoder<LlamaEncoder>(
        ComponentFiles::OpenOriginal(path, EncoderFolder("llava"), FindLlamaEncoder));
    EXPECT_EQ(in_llava->config().image_token_index, kImageToken);
    EXPECT_EQ(in_llava->config().hidden_size, 128);
  }
}

TEST_F(LlamaEncoderTest, ImagesStandWhereTheirTokensAre) {
  const auto encoder = EncoderIn<LlamaEncoder>("llava");
  const EncoderCases cases("llava");
  const c10::InferenceMode inference;
  // No layer is run: what goes into the first.
  nlohmann::json config = ConfigIn("llava");
  config["num_hidden_layers_to_skip"] = 4;
  const auto first = Encoder<LlamaEncoder>(WithConfig("llava", config));
  const int64_t width = first->width();
  const at::Tensor ids = at::full({1, 5}, 7, at::kLong);
  ids[0][1].fill_(kImageToken);
  ids[0][3].fill_(kImageToken);
  const at::Tensor images =
      at::cat({at::full({1, 1, width}, 2.0), at::full({1, 1, width}, 3.0)}, 1);
  const at::Tensor states = first->Forward({{.ids = ids, .images = images}}, {})[0];
  EXPECT_TRUE(at::equal(states.select(1, 1), images.select(1, 0)));
  EXPECT_TRUE(at::equal(states.select(1, 3), images.select(1, 1)));
  const at::Tensor text = first->Forward({{.ids = ids}}, {})[0];
  for (const int at : {0, 2, 4}) EXPECT_TRUE(at::equal(states.select(1, at), text.select(1, at)));
  EXPECT_FALSE(at::equal(states.select(1, 1), text.select(1, 1)));
}

TEST_F(LlamaEncoderTest, PromptsThatDoNotFitAreRefused) {
  const auto encoder = EncoderIn<LlamaEncoder>("llava");
  const int64_t width = encoder->width();
  const at::Tensor ids = at::full({1, 3}, kImageToken, at::kLong);
  for (const int64_t tokens : {1, 2, 4}) {
    const absl::Status status =
        ForwardStatus(*encoder, {{.ids = ids, .images = at::ones({1, tokens, width})}});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("llava"), HasSubstr(absl::StrCat("[1, 3, ", width, "]")),
                      HasSubstr(absl::StrCat("[1, ", tokens))));
  }
  EXPECT_FALSE(ForwardStatus(*encoder, {{.ids = ids, .images = at::ones({1, 3, width + 1})}}).ok());
  EXPECT_FALSE(ForwardStatus(*encoder, {{.ids = ids, .images = at::ones({3, width})}}).ok());
  for (const int64_t id : {-1, 97, 1000000}) {
    const absl::Status status = ForwardStatus(*encoder, {{.ids = at::full({1, 2}, id, at::kLong)}});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << id;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr(absl::StrCat("token id ", id)), HasSubstr("97")));
  }
  const auto alone = EncoderIn<LlamaEncoder>("llama");
  const absl::Status status = ForwardStatus(
      *alone, {{.ids = at::full({1, 1}, kImageToken, at::kLong), .images = at::ones({1, 1, 48})}});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("expected a LLaVA"));
}

TEST_F(LlamaEncoderTest, AnotherModelsConfigIsToldByItsType) {
  const absl::Status status =
      LlamaEncoderConfig::FromJson({{"model_type", "bert"}, {"hidden_act", "gelu"}}, "x").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("model_type 'bert'"));
}

TEST_F(LlamaEncoderTest, ConfigsThatNoLlamaHasAreRefusedByName) {
  const nlohmann::json good = ConfigIn("llama");
  const auto rope = [](const nlohmann::json& with) {
    nlohmann::json parameters = {{"rope_theta", 1e4}};
    parameters.update(with);
    return parameters;
  };
  struct Case {
    const char* key;
    nlohmann::json value;
    absl::StatusCode code;
    const char* says;
  };
  constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  for (const Case& wrong : std::vector<Case>{
           {"model_type", "mistral", kUnimplemented, "'mistral'"},
           {"model_type", "llava", kUnimplemented, "'llava'"},
           {"hidden_act", "gelu", kUnimplemented, "'gelu'"},
           {"rope_parameters", rope({{"rope_type", "yarn"}, {"factor", 2}}), kUnimplemented,
            "'yarn'"},
           {"rope_parameters", rope({{"rope_type", "dynamic"}, {"factor", 2}}), kUnimplemented,
            "'dynamic'"},
           {"rope_scaling", {{"type", "longrope"}, {"factor", 2}}, kUnimplemented, "'longrope'"},
           {"rope_parameters", rope({{"partial_rotary_factor", 0.5}}), kUnimplemented,
            "partial_rotary_factor"},
           {"partial_rotary_factor", 0.5, kUnimplemented, "partial_rotary_factor"},
           {"rope_parameters", rope({{"rope_type", "linear"}}), kInvalid, "factor 0"},
           {"rope_parameters", rope({{"rope_type", "llama3"}, {"factor", 8}}), kInvalid,
            "low_freq_factor 0"},
           {"rope_parameters", {{"rope_theta", -1}}, kInvalid, "rope_theta -1"},
           {"rope_parameters", {{"rope_theta", "much"}}, kInvalid, "'rope_theta'"},
           {"num_key_value_heads", 4, kInvalid, "num_key_value_heads"},
           {"num_key_value_heads", 0, kInvalid, "not positive"},
           {"num_attention_heads", 0, kInvalid, "not positive"},
           {"head_dim", 7, kInvalid, "heads of 7"},
           {"hidden_size", 0, kInvalid, "not positive"},
           {"num_hidden_layers", 2000000000, kInvalid, "num_hidden_layers"},
           {"vocab_size", "many", kInvalid, "'vocab_size'"}}) {
    nlohmann::json config = good;
    config[wrong.key] = wrong.value;
    const absl::Status status = LlamaEncoderConfig::FromJson(config, "x/config.json").status();
    EXPECT_EQ(status.code(), wrong.code) << wrong.key << ": " << status;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("x/config.json"), HasSubstr(wrong.says)))
        << wrong.key;
  }
  nlohmann::json llava = ConfigIn("llava");
  llava["text_config"]["model_type"] = "mistral";
  EXPECT_EQ(LlamaEncoderConfig::FromJson(llava, "x").status().code(), kUnimplemented);
}

TEST_F(LlamaEncoderTest, MissingKeysTakeTheClasssDefaults) {
  const auto config = LlamaEncoderConfig::FromJson(nlohmann::json::object(), "x");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->vocab_size, 32000);
  EXPECT_EQ(config->hidden_size, 4096);
  EXPECT_EQ(config->intermediate_size, 11008);
  EXPECT_EQ(config->num_key_value_heads, 32);
  EXPECT_EQ(config->head_dim, 128);
  EXPECT_EQ(config->rope.theta, 10000.0);
  EXPECT_EQ(config->rms_norm_eps, 1e-6);
  EXPECT_EQ(config->image_token_index, -1);
  const auto llava = LlamaEncoderConfig::FromJson(
      {{"model_type", "llava"}, {"text_config", {{"head_dim", 64}}}}, "x");
  ASSERT_TRUE(llava.ok()) << llava.status();
  EXPECT_EQ(llava->image_token_index, 32000);
  EXPECT_EQ(llava->head_dim, 64);
}

TEST_F(LlamaEncoderTest, WeightsThatDoNotFitAreReported) {
  nlohmann::json config = ConfigIn("llama");
  config["num_hidden_layers"] = 3;
  std::string message(TryEncoder<LlamaEncoder>(WithConfig("llama", config)).status().message());
  EXPECT_THAT(message, HasSubstr("unexpected: layers.3.input_layernorm.weight"));
  config["num_hidden_layers"] = 4;
  config["intermediate_size"] = 57;
  message = std::string(TryEncoder<LlamaEncoder>(WithConfig("llama", config)).status().message());
  EXPECT_THAT(message, HasSubstr("layers.0.mlp.gate_proj.weight is [56, 48], expected [57, 48]"));
  // Another component's folder.
  message = std::string(
      TryEncoder<LlamaEncoder>(WithConfig("siglip_4", ConfigIn("llama"))).status().message());
  EXPECT_THAT(message, HasSubstr("missing: embed_tokens.weight"));
}

// What a run holds at most, of tokens that are many beside a head's and the feed-forward's numbers.
int64_t Peak(const ComputeTarget& target, c10::ScalarType dtype, int64_t length) {
  const auto encoder = Encoder<LlamaEncoder>(ComponentFiles::Open(EncoderFolder("llava"), ""),
                                             dtype, {}, c10::Device(c10::kMeta));
  const at::Tensor ids = at::full({1, length}, 7, at::kLong);
  ids.narrow(1, 2, 16).fill_(kImageToken);
  Trace trace(target);
  trace.Reset();
  const at::Tensor image =
      at::empty({1, 16, encoder->width()}, at::TensorOptions(at::kMeta).dtype(at::kFloat));
  const c10::InferenceMode inference;
  const at::Tensor states = encoder->Forward({{.ids = ids, .images = image}}, {})[0];
  EXPECT_TRUE(states.is_meta());
  EXPECT_EQ(states.scalar_type(), dtype);
  return trace.counts().device_peak;
}

TEST_F(LlamaEncoderTest, ATraceHoldsNothingForEachPairOfTokens) {
  constexpr int64_t kTokens = 4096;
  for (const ComputeTarget& target :
       {ComputeTarget{.is_gpu = true},
        ComputeTarget{.cpu = {.avx = true, .avx512 = true, .bfloat16 = true}, .threads = 2}}) {
    for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const int64_t peak = Peak(target, dtype, kTokens);
      // One byte for each pair would be more than all that is held.
      EXPECT_LT(peak, kTokens * kTokens) << target.is_gpu << dtype;
      EXPECT_LT(Peak(target, dtype, 2 * kTokens), 2.2 * static_cast<double>(peak));
    }
  }
}

TEST_F(LlamaEncoderTest, CancelStopsBetweenBlocks) {
  const auto encoder = EncoderIn<LlamaEncoder>("llama");
  CancelToken cancel;
  cancel.Cancel();
  const RunContext context{.cancel = &cancel};
  const absl::Status status = RunGuarded([&] {
    encoder->Forward(Prompts(EncoderCases("llama")), context);
    return absl::OkStatus();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
}

}  // namespace
}  // namespace kino::engine
