// The vision encoders against transformers, on small random models (encoder_fixtures.py).
#include "engine/text/vision_encoder.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include "engine/core/status_bridge.h"
#include "tests/engine/text/encoder_cases.h"

namespace kino::engine {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

void ExpectReference(const VisionEncoder& encoder, const EncoderCases& cases) {
  const c10::InferenceMode inference;
  const std::vector<at::Tensor> features = encoder.Forward(cases.All("pixels"), {});
  ExpectFloats(features, cases.All("features"));
  EXPECT_EQ(features[0].size(1), encoder.tokens());
  EXPECT_EQ(features[0].size(2), encoder.width());
}

absl::Status ForwardStatus(const VisionEncoder& encoder, const at::Tensor& pixels) {
  return RunGuarded([&] {
    encoder.Forward({pixels}, {});
    return absl::OkStatus();
  });
}

class VisionEncoderTest : public ::testing::TestWithParam<const char*> {
 protected:
  VisionEncoderTest() { at::set_num_threads(1); }
};

TEST_P(VisionEncoderTest, FloatsAreThoseOfTransformers) {
  const auto encoder = EncoderIn<VisionEncoder>(GetParam());
  ExpectReference(*encoder, EncoderCases(GetParam()));
}

TEST_P(VisionEncoderTest, BFloat16IsRoundedWhereTransformersRounds) {
  const auto encoder = EncoderIn<VisionEncoder>(GetParam(), at::kBFloat16);
  const EncoderCases cases(GetParam());
  const c10::InferenceMode inference;
  ExpectRoundedAlike(encoder->Forward(cases.All("pixels"), {}), cases.All("features", "_bfloat16"),
                     cases.All("features"));
}

INSTANTIATE_TEST_SUITE_P(Configs, VisionEncoderTest,
                         ::testing::Values("siglip_4", "siglip_5", "llava", "llava_full",
                                           "llava_first"),
                         [](const auto& config) { return std::string(config.param); });

TEST_F(VisionEncoderTest, BothAgesOfLlavasNamesAreRead) {
  for (const char* age : {"llava_4", "llava_5"}) {
    SCOPED_TRACE(age);
    const auto encoder = EncoderIn<VisionEncoder>(age);
    ExpectReference(*encoder, EncoderCases("llava"));
  }
}

TEST_F(VisionEncoderTest, EveryPolicyGivesTheSameBits) {
  for (const char* name : {"siglip_4", "llava"}) {
    SCOPED_TRACE(name);
    const std::vector<at::Tensor> pixels = EncoderCases(name).All("pixels");
    const c10::InferenceMode inference;
    const std::vector<at::Tensor> expected = EncoderIn<VisionEncoder>(name)->Forward(pixels, {});
    Residency::set_poison_released(true);
    for (const char* offload : kEveryOffload) {
      const auto encoder = EncoderIn<VisionEncoder>(
          name, at::kFloat, {.residency = *ResidencyPolicy::Parse(offload)});
      for (int pass = 0; pass < 2; ++pass) {
        const std::vector<at::Tensor> got = encoder->Forward(pixels, {});
        for (size_t i = 0; i < got.size(); ++i)
          EXPECT_TRUE(at::equal(got[i], expected[i])) << offload << ", pass " << pass << ", " << i;
      }
    }
    Residency::set_poison_released(false);
  }
}

TEST_F(VisionEncoderTest, LayersBehindTheFeaturesAreNotHeldAndAllOthersAreRead) {
  for (const auto& [name, layers] : {std::pair{"llava", 2}, {"llava_first", 1}, {"siglip_5", 3}}) {
    SCOPED_TRACE(name);
    const auto encoder = EncoderIn<VisionEncoder>(name);
    ReadWeights audit;
    encoder->set_audit(&audit);
    const c10::InferenceMode inference;
    encoder->Forward(EncoderCases(name).All("pixels"), {});
    encoder->set_audit(nullptr);
    EXPECT_EQ(audit.names(), WeightsOf(*encoder));
    int norms = 0;
    for (const auto& weight : encoder->weights().weights()) {
      if (weight->name.ends_with("layer_norm1.weight")) ++norms;
      if (weight->name.find("patch_embedding") != std::string::npos) {
        EXPECT_EQ(weight->kind, LayerKind::kConvolution);
      } else if (weight->name.find("position_embedding") != std::string::npos) {
        EXPECT_EQ(weight->kind, LayerKind::kEmbedding);
      } else {
        EXPECT_EQ(weight->kind == LayerKind::kLinear,
                  weight->name.find("norm") == std::string::npos &&
                      weight->name.find("class_embedding") == std::string::npos)
            << weight->name;
      }
    }
    EXPECT_EQ(norms, layers);
  }
}

TEST_F(VisionEncoderTest, MatricesAreQuantized) {
  const std::vector<at::Tensor> pixels = EncoderCases("llava").All("pixels");
  const auto encoder = EncoderIn<VisionEncoder>(
      "llava", at::kFloat, {.residency = {}, .quantize = QuantScheme::kInt8Wo});
  const c10::InferenceMode inference;
  const std::vector<at::Tensor> expected = EncoderCases("llava").All("features");
  const double off = MeanDifference(encoder->Forward(pixels, {}), expected);
  EXPECT_GT(off, 0);
  EXPECT_LT(off, 0.05);  // measured 0.02, of values around 1
  for (const auto& weight : encoder->weights().weights())
    EXPECT_EQ(weight->format != nullptr, weight->is_matrix) << weight->name;
}

TEST_F(VisionEncoderTest, ImagesOfAnotherSizeAreRefused) {
  const auto encoder = EncoderIn<VisionEncoder>("siglip_4");
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{1, 3, 28, 29},
                                            {1, 3, 29, 30},
                                            {2, 3, 29, 29},
                                            {1, 1, 29, 29},
                                            {3, 29, 29}}) {
    const absl::Status status = ForwardStatus(*encoder, at::zeros(shape));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("[1, 3, 29, 29]"), HasSubstr("siglip_4")));
  }
}

TEST_F(VisionEncoderTest, ConfigsThatNoEncoderHasAreRefusedByName) {
  const nlohmann::json siglip = ConfigIn("siglip_4"), llava = ConfigIn("llava");
  constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const auto tower = [&llava](const char* key, const nlohmann::json& value) {
    nlohmann::json config = llava["vision_config"];
    config[key] = value;
    return config;
  };
  struct Case {
    const nlohmann::json& good;
    const char* key;
    nlohmann::json value;
    absl::StatusCode code;
    const char* says;
  };
  for (const Case& wrong : std::vector<Case>{
           {siglip, "model_type", "dinov2", kUnimplemented, "'dinov2'"},
           {siglip, "model_type", nullptr, kUnimplemented, "''"},
           {siglip, "hidden_act", "swish", kUnimplemented, "'swish'"},
           {siglip, "patch_size", 30, kInvalid, "patches of 30"},
           {siglip, "patch_size", 0, kInvalid, "patches of 0"},
           {siglip, "image_size", 1 << 30, kInvalid, "at most"},
           {siglip, "image_size", {29, 29}, kInvalid, "image_size"},
           {siglip, "num_channels", 1, kInvalid, "num_channels"},
           {siglip, "num_attention_heads", 5, kInvalid, "multiple"},
           {llava, "vision_feature_layer", 4, kInvalid, "1 to 3"},
           {llava, "vision_feature_layer", -4, kInvalid, "vision_feature_layer is -4"},
           {llava, "vision_feature_layer", 0, kInvalid, "vision_feature_layer is 0"},
           {llava, "vision_feature_layer", {-2, -1}, kInvalid, "vision_feature_layer"},
           {llava, "vision_feature_select_strategy", "patch", kUnimplemented, "'patch'"},
           {llava, "projector_hidden_act", "relu", kUnimplemented, "'relu'"},
           {llava, "vision_config", nullptr, kInvalid, "no vision_config"},
           {llava, "text_config", nullptr, kInvalid, "no text_config"},
           {llava, "vision_config", tower("model_type", "siglip_vision_model"), kUnimplemented,
            "'siglip_vision_model'"},
           {llava, "vision_config", tower("hidden_act", "relu"), kUnimplemented, "'relu'"}}) {
    nlohmann::json config = wrong.good;
    config[wrong.key] = wrong.value;
    const absl::Status status = VisionEncoderConfig::FromJson(config, "x/config.json").status();
    EXPECT_EQ(status.code(), wrong.code) << wrong.key << ": " << status;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("x/config.json"), HasSubstr(wrong.says)));
  }
}

TEST_F(VisionEncoderTest, MissingKeysTakeTheClasssDefaults) {
  const auto siglip = VisionEncoderConfig::FromJson({{"model_type", "siglip_vision_model"}}, "x");
  ASSERT_TRUE(siglip.ok()) << siglip.status();
  EXPECT_EQ(siglip->layers.layer_norm_eps, 1e-6);
  EXPECT_EQ(siglip->layers.activation, ClipActivation::kGeluTanh);
  EXPECT_EQ(siglip->patch_size, 16);
  EXPECT_EQ(siglip->tokens(), 14 * 14);
  EXPECT_EQ(siglip->layers_run, 12);
  const nlohmann::json none = {{"x", 1}};
  const auto llava = VisionEncoderConfig::FromJson(
      {{"model_type", "llava"}, {"vision_config", none}, {"text_config", none}}, "x");
  ASSERT_TRUE(llava.ok()) << llava.status();
  EXPECT_EQ(llava->layers.layer_norm_eps, 1e-5);
  EXPECT_EQ(llava->layers.activation, ClipActivation::kQuickGelu);
  EXPECT_EQ(llava->patch_size, 32);
  EXPECT_EQ(llava->tokens(), 7 * 7);
  EXPECT_EQ(llava->layers_run, 11);
  EXPECT_EQ(llava->width(), 4096);
}

TEST_F(VisionEncoderTest, WeightsThatDoNotFitAreReported) {
  nlohmann::json config = ConfigIn("siglip_4");
  config["num_hidden_layers"] = 2;
  std::string message(TryEncoder<VisionEncoder>(WithConfig("siglip_4", config)).status().message());
  EXPECT_THAT(message, HasSubstr("unexpected: vision_model.encoder.layers.2."));
  config = ConfigIn("llava");
  config["vision_config"]["image_size"] = 35;
  message = std::string(TryEncoder<VisionEncoder>(WithConfig("llava", config)).status().message());
  EXPECT_THAT(message, HasSubstr("position_embedding.weight is [17, 24], expected [26, 24]"));
}

TEST_F(VisionEncoderTest, ATraceHoldsNothingForEachPairOfPatches) {
  // Patches of one pixel: 16384 of them.
  nlohmann::json config = ConfigIn("siglip_4");
  config["image_size"] = 128;
  config["patch_size"] = 1;
  const auto parsed = VisionEncoderConfig::FromJson(config, "x");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const ComponentFiles files = WithConfig("siglip_4", config);
  VisionEncoder encoder(*parsed, files, at::kFloat, c10::Device(c10::kMeta));
  InstallMetaKernels();
  encoder.weights().HoldEmpty();
  for (const bool is_gpu : {false, true}) {
    const Trace trace({.is_gpu = is_gpu});
    const c10::InferenceMode inference;
    const at::Tensor pixels =
        at::empty({1, 3, 128, 128}, at::TensorOptions(at::kMeta).dtype(at::kFloat));
    const at::Tensor features = encoder.Forward({pixels}, {})[0];
    EXPECT_EQ(features.sizes(), at::IntArrayRef({1, 16384, 36}));
    EXPECT_LT(trace.counts().device_peak, int64_t{16384} * 16384);
  }
}

}  // namespace
}  // namespace kino::engine
