// CLIP's text encoder against transformers, on small random models (encoder_fixtures.py).
#include "engine/text/clip_text_encoder.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>

#include "engine/core/status_bridge.h"
#include "engine/text/encoder_files.h"
#include "tests/engine/text/encoder_cases.h"

namespace kino::engine {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

void ExpectReference(const ClipTextEncoder& encoder, const EncoderCases& cases) {
  const c10::InferenceMode inference;
  ExpectFloats(encoder.Forward(cases.All("ids"), {}), cases.All("pooled"));
}

absl::Status ForwardStatus(const ClipTextEncoder& encoder, const at::Tensor& ids) {
  return RunGuarded([&] {
    encoder.Forward({ids}, {});
    return absl::OkStatus();
  });
}

class ClipTextEncoderTest : public ::testing::TestWithParam<const char*> {
 protected:
  ClipTextEncoderTest() { at::set_num_threads(1); }
};

// Both ages of names; the highest id and the first end of text; quick_gelu and gelu.
TEST_P(ClipTextEncoderTest, FloatsAreThoseOfTransformers) {
  const auto encoder = EncoderIn<ClipTextEncoder>(GetParam());
  ExpectReference(*encoder, EncoderCases(GetParam()));
}

TEST_P(ClipTextEncoderTest, BFloat16IsRoundedWhereTransformersRounds) {
  const auto encoder = EncoderIn<ClipTextEncoder>(GetParam(), at::kBFloat16);
  const EncoderCases cases(GetParam());
  const c10::InferenceMode inference;
  ExpectRoundedAlike(encoder->Forward(cases.All("ids"), {}), cases.All("pooled", "_bfloat16"),
                     cases.All("pooled"));
}

INSTANTIATE_TEST_SUITE_P(Configs, ClipTextEncoderTest,
                         ::testing::Values("clip_4", "clip_5", "clip_eos_4", "clip_eos_5",
                                           "clip_heads_4"),
                         [](const auto& config) { return std::string(config.param); });

TEST_F(ClipTextEncoderTest, APromptHasTheSameBitsWhateverItGoesAlongWith) {
  const auto encoder = EncoderIn<ClipTextEncoder>("clip_4");
  const c10::InferenceMode inference;
  const std::vector<at::Tensor> ids = EncoderCases("clip_4").All("ids");
  const std::vector<at::Tensor> together = encoder->Forward(ids, {});
  for (size_t i = 0; i < ids.size(); ++i)
    EXPECT_TRUE(at::equal(encoder->Forward({ids[i]}, {})[0], together[i])) << i;
  EXPECT_TRUE(encoder->Forward({}, {}).empty());
}

TEST_F(ClipTextEncoderTest, EveryPolicyGivesTheSameBits) {
  const std::vector<at::Tensor> ids = EncoderCases("clip_5").All("ids");
  const c10::InferenceMode inference;
  const std::vector<at::Tensor> expected = EncoderIn<ClipTextEncoder>("clip_5")->Forward(ids, {});
  Residency::set_poison_released(true);
  for (const char* offload : kEveryOffload) {
    const auto encoder = EncoderIn<ClipTextEncoder>(
        "clip_5", at::kFloat, {.residency = *ResidencyPolicy::Parse(offload)});
    for (int pass = 0; pass < 2; ++pass) {
      const std::vector<at::Tensor> got = encoder->Forward(ids, {});
      for (size_t i = 0; i < got.size(); ++i)
        EXPECT_TRUE(at::equal(got[i], expected[i])) << offload << ", pass " << pass << ", " << i;
    }
  }
  Residency::set_poison_released(false);
}

TEST_F(ClipTextEncoderTest, EveryWeightThatIsHeldIsReadAndSaysItsKind) {
  const auto encoder = EncoderIn<ClipTextEncoder>("clip_4");
  ReadWeights audit;
  encoder->set_audit(&audit);
  const c10::InferenceMode inference;
  encoder->Forward(EncoderCases("clip_4").All("ids"), {});
  encoder->set_audit(nullptr);
  EXPECT_EQ(audit.names(), WeightsOf(*encoder));
  for (const auto& weight : encoder->weights().weights()) {
    const bool is_norm = weight->name.find("norm") != std::string::npos;
    const bool is_embedding = weight->name.find("embedding.") != std::string::npos;
    EXPECT_EQ(weight->kind, is_norm        ? LayerKind::kOther
                            : is_embedding ? LayerKind::kEmbedding
                                           : LayerKind::kLinear)
        << weight->name;
    EXPECT_EQ(weight->is_matrix, !is_norm && !is_embedding && weight->shape.size() == 2)
        << weight->name;
  }
}

TEST_F(ClipTextEncoderTest, ASingleFileIsAFolder) {
  const auto open = [](const std::string& name, const std::string& folder) {
    return Encoder<ClipTextEncoder>(ComponentFiles::OpenOriginal(
        EncoderFolder(name + "_single") + "/clip.safetensors", folder, FindClipTextEncoder));
  };
  for (const char* name : {"clip", "clip_eos"}) {
    SCOPED_TRACE(name);
    const std::string folder = absl::StrCat(name, "_4");
    const auto encoder = open(name, EncoderFolder(folder));
    ExpectReference(*encoder, EncoderCases(folder));
  }
  // CLIP ViT-L/14's ways, where there is no folder.
  const auto encoder = open("clip_heads", "");
  ExpectReference(*encoder, EncoderCases("clip_heads_4"));
}

TEST_F(ClipTextEncoderTest, OtherComponentsFilesHoldNone) {
  const absl::Status status =
      ComponentFiles::OpenOriginal(EncoderFolder("llama_single") + "/llama.safetensors", "",
                                   FindClipTextEncoder)
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("holds no CLIP"));
}

TEST_F(ClipTextEncoderTest, PromptsThatDoNotFitAreRefused) {
  const auto encoder = EncoderIn<ClipTextEncoder>("clip_4");
  EXPECT_EQ(encoder->max_tokens(), 19);
  absl::Status status = ForwardStatus(*encoder, at::full({1, 20}, 4, at::kLong));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("20 tokens"), HasSubstr("19 positions")));
  for (const int64_t id : {-3, 71}) {
    status = ForwardStatus(*encoder, at::full({1, 2}, id, at::kLong));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("token id ", id)));
  }
}

TEST_F(ClipTextEncoderTest, ConfigsThatNoClipHasAreRefusedByName) {
  const nlohmann::json good = ConfigIn("clip_4");
  const std::vector<std::tuple<const char*, nlohmann::json, absl::StatusCode, const char*>> cases =
      {{"model_type", "clip", absl::StatusCode::kUnimplemented, "'clip'"},
       {"hidden_act", "relu", absl::StatusCode::kUnimplemented, "'relu'"},
       {"num_attention_heads", 7, absl::StatusCode::kInvalidArgument, "multiple"},
       {"num_attention_heads", 0, absl::StatusCode::kInvalidArgument, "not positive"},
       {"vocab_size", 0, absl::StatusCode::kInvalidArgument, "vocab_size"},
       {"max_position_embeddings", 0, absl::StatusCode::kInvalidArgument,
        "max_position_embeddings"},
       {"num_hidden_layers", 1 << 30, absl::StatusCode::kInvalidArgument, "num_hidden_layers"},
       {"eos_token_id", {1, 2}, absl::StatusCode::kInvalidArgument, "eos_token_id"}};
  for (const auto& [key, value, code, says] : cases) {
    nlohmann::json config = good;
    config[key] = value;
    const absl::Status status = ClipTextConfig::FromJson(config, "x/config.json").status();
    EXPECT_EQ(status.code(), code) << key << ": " << status;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("x/config.json"), HasSubstr(says)));
  }
  const auto defaults = ClipTextConfig::FromJson(nlohmann::json::object(), "x");
  ASSERT_TRUE(defaults.ok()) << defaults.status();
  EXPECT_EQ(defaults->eos_token_id, 49407);
  EXPECT_EQ(defaults->vocab_size, 49408);
  EXPECT_EQ(defaults->max_position_embeddings, 77);
  EXPECT_EQ(defaults->layers.num_attention_heads, 8);
  EXPECT_EQ(defaults->layers.activation, ClipActivation::kQuickGelu);
}

TEST_F(ClipTextEncoderTest, WeightsThatDoNotFitAreReported) {
  nlohmann::json config = ConfigIn("clip_4");
  config["num_hidden_layers"] = 2;
  const std::string message(
      TryEncoder<ClipTextEncoder>(WithConfig("clip_4", config)).status().message());
  EXPECT_THAT(message, HasSubstr("unexpected: text_model.encoder.layers.2."));
}

TEST_F(ClipTextEncoderTest, ATraceHasTheShape) {
  const auto encoder = Encoder<ClipTextEncoder>(ComponentFiles::Open(EncoderFolder("clip_4"), ""),
                                                at::kBFloat16, {}, c10::Device(c10::kMeta));
  for (const bool is_gpu : {false, true}) {
    const Trace trace({.is_gpu = is_gpu});
    const c10::InferenceMode inference;
    const at::Tensor pooled = encoder->Forward({at::full({1, 19}, 4, at::kLong)}, {})[0];
    EXPECT_EQ(pooled.sizes(), at::IntArrayRef({1, 30}));
    EXPECT_TRUE(pooled.is_meta());
    EXPECT_EQ(pooled.scalar_type(), at::kBFloat16);
  }
}

}  // namespace
}  // namespace kino::engine
