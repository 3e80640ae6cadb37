// HunyuanVideo's transformers against diffusers, small and with random weights.
#include "engine/models/hunyuan_video/transformer.h"

#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>

#include <cmath>
#include <functional>

#include "engine/core/json.h"
#include "engine/core/status_bridge.h"
#include "tests/engine/models/hunyuan_video/transformer_cases.h"

namespace kino::engine {
namespace {

using ::testing::HasSubstr;

// Outputs are about 1; float32 sums of another order differ by a few times 1e-6.
constexpr double kTolerance = 1e-5;

class HunyuanTransformerTest : public ::testing::Test {
 protected:
  // Bit-identity is promised on one thread.
  HunyuanTransformerTest() { at::set_num_threads(1); }
};

struct Named {
  const char* model;
  const char* name;
};
void PrintTo(const Named& named, std::ostream* out) { *out << named.model << " " << named.name; }

class HunyuanCaseTest : public HunyuanTransformerTest, public ::testing::WithParamInterface<Named> {
 protected:
  const HunyuanCase case_{std::string(GetParam().model) + "/cases.safetensors", GetParam().name};
};

TEST_P(HunyuanCaseTest, ComputesWhatDiffusersComputes) {
  EXPECT_LT(MaxError(case_.Run(*LoadHunyuan(GetParam().model)), case_.Get("expected")), kTolerance);
}

TEST_P(HunyuanCaseTest, AFeedForwardInPiecesIsOneFeedForward) {
  const auto transformer = LoadHunyuan(GetParam().model);
  // Three pieces and more, the last one smaller; one token at a time in small models only.
  for (const int tokens : {7, 31, 1000000}) {
    if (case_.grid().height > 32 && tokens < 31) continue;
    EXPECT_LT(
        MaxError(case_.Run(*transformer, {.chunk_feed_forward = tokens}), case_.Get("expected")),
        kTolerance)
        << tokens;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, HunyuanCaseTest,
    ::testing::Values(Named{"t2v", "one"}, Named{"t2v", "two"}, Named{"t2v", "long"},
                      Named{"odd", "one"}, Named{"odd", "two"}, Named{"unguided", "one"},
                      Named{"unguided", "two"}, Named{"token_replace", "one"},
                      Named{"token_replace", "two"}, Named{"token_replace", "still"},
                      Named{"latent_concat", "one"}, Named{"latent_concat", "two"},
                      Named{"skyreels", "one"}, Named{"skyreels", "two"},
                      Named{"framepack", "section"}, Named{"framepack", "next"},
                      Named{"wide", "one"}),
    [](const auto& named) { return std::string(named.param.model) + "_" + named.param.name; });

class HunyuanBFloat16Test : public HunyuanTransformerTest,
                            public ::testing::WithParamInterface<const char*> {};

// Both round at the same places, but the sums before them differ; no further from float32 than
// diffusers, within 1 dB.
TEST_P(HunyuanBFloat16Test, IsAsFarFromFloat32AsDiffusers) {
  const HunyuanCase one(std::string(GetParam()) + "/cases.safetensors", "one");
  const at::Tensor exact = one.Get("expected").to(at::kDouble);
  // Diffusers rounds guidance, and with it moves the outcome: against its own bfloat16, then.
  const at::Tensor theirs = one.Get("bfloat16").to(at::kDouble);
  const at::Tensor ours = one.Run(*LoadHunyuan(GetParam(), at::kBFloat16)).to(at::kDouble);
  const auto rms = [](const at::Tensor& x) { return std::sqrt(x.pow(2).mean().item<double>()); };
  EXPECT_LT(rms(ours - theirs), 0.02 * rms(theirs));
  EXPECT_LT(rms(ours - exact), std::pow(10.0, 1.0 / 20) * rms(theirs - exact));
}

INSTANTIATE_TEST_SUITE_P(Models, HunyuanBFloat16Test,
                         ::testing::Values("t2v", "odd", "unguided", "token_replace",
                                           "latent_concat", "skyreels"));

TEST_F(HunyuanTransformerTest, RowsDoNotSeeEachOther) {
  const auto transformer = LoadHunyuan("t2v");
  const HunyuanCase two("t2v/cases.safetensors", "two");
  const at::Tensor expected = two.Get("expected");
  const c10::InferenceMode inference;
  for (const int64_t row : {0, 1}) {
    const auto prepared = transformer->Prepare({two.texts()[static_cast<size_t>(row)]}, two.grid(),
                                               two.timesteps(), kGuidance, {});
    const at::Tensor alone =
        transformer->Forward(prepared, 1, two.Get("latents").narrow(0, row, 1), {});
    EXPECT_LT(MaxError(alone, expected[1].narrow(0, row, 1)), kTolerance);
  }
}

// Of a mask that is empty diffusers makes NaNs. Here such a row has a video and nothing else.
TEST_F(HunyuanTransformerTest, ARowWithoutTextIsAVideoAlone) {
  const auto transformer = LoadHunyuan("t2v");
  const HunyuanCase two("t2v/cases.safetensors", "two");
  std::vector<HunyuanVideoText> texts = two.texts();
  texts[1].tokens = texts[1].tokens.narrow(1, 0, 0);
  const at::Tensor latents = two.Get("latents");
  const c10::InferenceMode inference;
  const auto prepared = transformer->Prepare(texts, two.grid(), two.timesteps(), kGuidance, {});
  const at::Tensor both = transformer->Forward(prepared, 0, latents, {});
  EXPECT_LT(MaxError(both.narrow(0, 0, 1), two.Get("expected")[0].narrow(0, 0, 1)), kTolerance);
  const auto none = transformer->Prepare({texts[1]}, two.grid(), two.timesteps(), kGuidance, {});
  EXPECT_EQ(none.layout.text_tokens(), 0);
  const at::Tensor alone = transformer->Forward(none, 0, latents.narrow(0, 1, 1), {});
  EXPECT_TRUE(alone.isfinite().all().item<bool>());
  EXPECT_LT(MaxError(both.narrow(0, 1, 1), alone), kTolerance);
  EXPECT_GT(MaxError(both.narrow(0, 1, 1), two.Get("expected")[0].narrow(0, 1, 1)), 1e-3);
}

// One Prepare; the text and all modulation stay as they are.
TEST_F(HunyuanTransformerTest, ASectionsHistoryReplacesTheOneBefore) {
  const auto transformer = LoadHunyuan("framepack");
  const HunyuanCase first("framepack/cases.safetensors", "section");
  const HunyuanCase next("framepack/cases.safetensors", "next");
  const c10::InferenceMode inference;
  auto prepared = first.Prepare(*transformer);
  EXPECT_LT(MaxError(first.Steps(*transformer, prepared), first.Get("expected")), kTolerance);
  transformer->SetHistory(prepared, next.history());
  EXPECT_LT(MaxError(next.Steps(*transformer, prepared), next.Get("expected")), kTolerance);
  EXPECT_GT(MaxError(first.Get("expected"), next.Get("expected")), 1e-2);
}

// A step may come again: with another guidance, another section, a solver that looks twice.
TEST_F(HunyuanTransformerTest, ForwardLeavesWhatIsPreparedAsItIs) {
  for (const auto& [model, name] : {std::pair("t2v", "one"), std::pair("framepack", "next")}) {
    const auto transformer = LoadHunyuan(model);
    const HunyuanCase of(std::string(model) + "/cases.safetensors", name);
    const c10::InferenceMode inference;
    const auto prepared = of.Prepare(*transformer);
    const at::Tensor first = of.Steps(*transformer, prepared);
    EXPECT_TRUE(at::equal(of.Steps(*transformer, prepared), first)) << model;
  }
}

// Its own places in time, 0 and on, are those of a section that is told them.
TEST_F(HunyuanTransformerTest, WithoutAHistoryFramesAreCountedFromZero) {
  const auto transformer = LoadHunyuan("framepack");
  const HunyuanCase first("framepack/cases.safetensors", "section");
  const c10::InferenceMode inference;
  auto prepared =
      transformer->Prepare(first.texts(), first.grid(), first.timesteps(), kGuidance, {});
  const at::Tensor plain = transformer->Forward(prepared, 0, first.Get("latents"), {});
  transformer->SetHistory(prepared,
                          {.indices = {0, 1, 2}, .clean = {}, .clean_2x = {}, .clean_4x = {}});
  EXPECT_TRUE(at::equal(transformer->Forward(prepared, 0, first.Get("latents"), {}), plain));
}

std::string FailureOf(const std::function<void()>& body) {
  const absl::Status status = RunGuarded([&] {
    body();
    return absl::OkStatus();
  });
  return std::string(status.message());
}

TEST_F(HunyuanTransformerTest, WhatDoesNotFitTheModelIsSaid) {
  const c10::InferenceMode inference;
  const auto t2v = LoadHunyuan("t2v");
  const auto framepack = LoadHunyuan("framepack");
  const HunyuanCase one("t2v/cases.safetensors", "one");
  const HunyuanCase section("framepack/cases.safetensors", "section");
  EXPECT_THAT(FailureOf([&] { t2v->Prepare(one.texts(), one.grid(), {1}, std::nullopt, {}); }),
              HasSubstr("guidance"));
  std::vector<HunyuanVideoText> texts = one.texts();
  texts[0].image = one.texts()[0].tokens;
  EXPECT_THAT(FailureOf([&] { t2v->Prepare(texts, one.grid(), {1}, kGuidance, {}); }),
              HasSubstr("FramePack"));
  auto prepared = t2v->Prepare(one.texts(), one.grid(), {1}, kGuidance, {});
  EXPECT_THAT(FailureOf([&] {
                t2v->SetHistory(
                    prepared, {.indices = {0, 1, 2}, .clean = {}, .clean_2x = {}, .clean_4x = {}});
              }),
              HasSubstr("FramePack"));
  prepared = framepack->Prepare(section.texts(), section.grid(), {1}, kGuidance, {});
  HunyuanVideoHistory history = section.history();
  history.indices.pop_back();
  EXPECT_THAT(FailureOf([&] { framepack->SetHistory(prepared, history); }),
              HasSubstr("2 indices of 3 frames"));
  history = section.history();
  history.clean_2x.indices.pop_back();
  EXPECT_THAT(FailureOf([&] { framepack->SetHistory(prepared, history); }),
              HasSubstr("with 2 indices"));
  history = section.history();
  history.clean.latents = history.clean.latents.narrow(3, 0, 4);
  EXPECT_THAT(FailureOf([&] { framepack->SetHistory(prepared, history); }),
              HasSubstr("latents of 12 x 20"));
}

TEST_F(HunyuanTransformerTest, CancelStopsBetweenBlocks) {
  const auto transformer = LoadHunyuan("t2v");
  const HunyuanCase one("t2v/cases.safetensors", "one");
  CancelToken cancel;
  HostWorkCounter counter;
  const RunContext context{.cancel = &cancel, .counter = &counter};
  one.Run(*transformer, context);
  // Two refiner blocks and the modulation of five blocks, then five blocks for each of two steps.
  EXPECT_EQ(counter.done(), 2u + 5u + 2u * 5u);
  cancel.Cancel();
  const absl::Status status = RunGuarded([&] {
    one.Run(*transformer, context);
    return absl::OkStatus();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  EXPECT_EQ(counter.done(), 18u);
}

nlohmann::json ConfigOf(const std::string& name) {
  return *ReadJsonFile(HunyuanFixtures() + "/" + name + "/config.json");
}

TEST_F(HunyuanTransformerTest, ConfigsAreReadWithDiffusersDefaults) {
  const auto plain = HunyuanVideoTransformerConfig::FromJson(nlohmann::json::object(), "config");
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(*plain, HunyuanVideoTransformerConfig());
  EXPECT_EQ(plain->width(), 3072);
  EXPECT_EQ(plain->mlp_width(), 12288);
  nlohmann::json json = {{"in_channels", 8}};
  EXPECT_EQ(HunyuanVideoTransformerConfig::FromJson(json, "")->out_channels, 16);
  json["out_channels"] = nullptr;
  EXPECT_EQ(HunyuanVideoTransformerConfig::FromJson(json, "")->out_channels, 8);
  const auto framepack = HunyuanVideoTransformerConfig::FromJson(ConfigOf("framepack"), "");
  ASSERT_TRUE(framepack.ok()) << framepack.status();
  EXPECT_TRUE(framepack->is_framepack);
  EXPECT_EQ(framepack->image_proj_dim, 20);
  using Image = HunyuanVideoTransformerConfig::ImageCondition;
  EXPECT_EQ(
      HunyuanVideoTransformerConfig::FromJson(ConfigOf("token_replace"), "")->image_condition_type,
      Image::kTokenReplace);
  EXPECT_EQ(
      HunyuanVideoTransformerConfig::FromJson(ConfigOf("latent_concat"), "")->image_condition_type,
      Image::kLatentConcat);
}

TEST_F(HunyuanTransformerTest, ConfigsOfNoSuchModelAreRefusedByName) {
  struct Broken {
    const char* model;
    nlohmann::json change;
    absl::StatusCode code;
    const char* says;
  };
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  const auto kUnknown = absl::StatusCode::kUnimplemented;
  for (const Broken& broken : std::vector<Broken>{
           {"t2v", {{"num_layers", 0}}, kInvalid, "'num_layers' is 0"},
           {"t2v", {{"num_single_layers", -1}}, kInvalid, "'num_single_layers' is -1"},
           {"t2v", {{"num_refiner_layers", 0}}, kInvalid, "num_refiner_layers"},
           {"t2v", {{"in_channels", "4"}}, kInvalid, "in_channels"},
           {"t2v", {{"mlp_ratio", 0.0}}, kInvalid, "mlp_ratio"},
           {"t2v", {{"mlp_ratio", 0.001}}, kInvalid, "mlp_ratio"},
           {"t2v", {{"rope_theta", 0.0}}, kInvalid, "rope_theta"},
           {"t2v", {{"rope_axes_dim", {4, 6, 8}}}, kInvalid, "[4, 6, 8]"},
           {"t2v", {{"rope_axes_dim", {5, 5, 6}}}, kInvalid, "[5, 5, 6]"},
           {"t2v", {{"rope_axes_dim", {8, 8}}}, kInvalid, "[8, 8]"},
           {"t2v", {{"rope_axes_dim", {4, 6, -6, 12}}}, kInvalid, "attention_head_dim, 16"},
           {"t2v", {{"qk_norm", "layer_norm"}}, kUnknown, "layer_norm"},
           {"t2v", {{"patch_size_t", 2}}, kUnknown, "patch_size_t 2"},
           {"t2v", {{"image_condition_type", "inpaint"}}, kUnknown, "inpaint"},
           {"framepack", {{"has_image_proj", false}}, kUnknown, "has_image_proj"},
           {"framepack", {{"has_clean_x_embedder", false}}, kUnknown, "has_clean_x_embedder"},
           {"framepack",
            {{"has_clean_x_embedder", false}, {"has_image_proj", false}},
            kUnknown,
            "has_clean_x_embedder"},
           {"framepack",
            {{"image_condition_type", "token_replace"}},
            kUnknown,
            "image_condition_type"},
           {"framepack", {{"patch_size", 1}}, kUnknown, "patch_size 1"},
           {"framepack", {{"image_proj_dim", 0}}, kInvalid, "image_proj_dim"}}) {
    nlohmann::json json = ConfigOf(broken.model);
    json.update(broken.change);
    const absl::Status status =
        HunyuanVideoTransformerConfig::FromJson(json, "the/config.json").status();
    EXPECT_EQ(status.code(), broken.code) << broken.change << " " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(broken.says)) << broken.change;
    EXPECT_THAT(std::string(status.message()), HasSubstr("the/config.json")) << broken.change;
  }
}

}  // namespace
}  // namespace kino::engine
