// What descriptions say of folders with a latent upsampler.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "engine/describe/describe.h"
#include "engine/models/ltx/describe.h"
#include "tests/support/bare_model.h"
#include "tests/support/resolving_test.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace kino::engine {
namespace {

using ::kino::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

// An LTX-Video whose folder holds a latent upsampler that its model_index.json does not name.
class TwoPassTest : public testing::ResolvingTest {
 protected:
  TwoPassTest() {
    testing::WriteBareModel(folder_, {.pipeline_class = "LTXPipeline"});
    folder_.Write("latent_upsampler/diffusion_pytorch_model.safetensors",
                  testing::SafetensorsOf({{"weight", {1}, {0}}}));
    Configure("{}");
    request_.prompt = "a red star";
    request_.height = 512;
    request_.width = 768;
    request_.num_frames = 25;
  }
  void Configure(const std::string& upsampler) {
    folder_.Write("latent_upsampler/config.json", upsampler);
    const absl::StatusOr<ModelDescription> model = DescribeModel(folder_.path());
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *model;
  }

  TempDir folder_;
};

TEST_F(TwoPassTest, OneIsTheDefaultAndAnyKnobOfTheSecondAsksForTwo) {
  EXPECT_EQ(Resolve().request.knobs.values.at("passes"), KnobValue(int64_t{1}));
  EXPECT_FALSE(Resolve().request.knobs.values.contains("second_pass_strength"));
  request_.knobs.values["second_pass_timesteps"] = std::vector<double>{1000, 500, 0};
  const ResolvedRequest resolved = Resolve();
  EXPECT_THAT(resolved.violations, ElementsAre());
  const std::map<std::string, KnobValue>& values = resolved.request.knobs.values;
  EXPECT_EQ(values.at("passes"), KnobValue(int64_t{2}));
  EXPECT_EQ(values.at("second_pass_steps"), KnobValue(int64_t{3}));
  EXPECT_EQ(values.at("second_pass_strength"), KnobValue(0.4));
  EXPECT_EQ(values.at("denoise_strength"), KnobValue(1.0));  // LTXConditionPipeline runs
  EXPECT_EQ(ResolveRequest(model_, resolved.request, 1).request, resolved.request);
  const auto upsampler = [](const ComponentDescription& each) { return each.name; };
  EXPECT_THAT(model_.components,
              ::testing::Contains(::testing::ResultOf(upsampler, "latent_upsampler")));
}

// It is loaded then as well, and a plan has to know of it.
TEST_F(TwoPassTest, AnUpsamplersFolderCountsWhateverTheIndexSays) {
  for (const char* const said : {R"([null, null])", R"(["ltx", "LTXLatentUpsamplerModel"])"}) {
    folder_.Write("model_index.json",
                  absl::StrCat(R"({"_class_name": "LTXPipeline", "latent_upsampler": )", said,
                               R"(, "transformer": ["diffusers", "LTXVideoTransformer3DModel"]})"));
    Configure("{}");
    EXPECT_THAT(model_.WeightedComponents(), ElementsAre("latent_upsampler", "transformer"))
        << said;
  }
}

TEST_F(TwoPassTest, TheOperatorsSecondPassIsLeftOutOfOne) {
  model_.overrides.knobs.values = {{"passes", int64_t{1}},
                                   {"second_pass_timesteps", std::vector<double>{1000, 500}},
                                   {"second_pass_strength", 0.9},
                                   {"adain_factor", 1.0}};
  const std::map<std::string, KnobValue> one = Resolve().request.knobs.values;
  for (const char* const knob : {"second_pass_timesteps", "second_pass_strength", "adain_factor"})
    EXPECT_FALSE(one.contains(knob)) << knob;
  request_.knobs.values["passes"] = int64_t{2};
  const std::map<std::string, KnobValue> two = Resolve().request.knobs.values;
  EXPECT_EQ(two.at("second_pass_strength"), KnobValue(0.9));
  EXPECT_EQ(two.at("adain_factor"), KnobValue(1.0));
}

TEST_F(TwoPassTest, TheSecondPassDoesNotGoByTheFirstOnesList) {
  for (const auto& [knob, list] : {std::pair{"sigmas", std::vector<double>{1, 0.5, 0.2}},
                                   std::pair{"timesteps", std::vector<double>{1000, 500, 200}}}) {
    request_.knobs.values = {{knob, list}, {"second_pass_steps", int64_t{5}}};
    const ResolvedRequest resolved = Resolve();
    EXPECT_THAT(resolved.violations, ElementsAre());
    const std::vector<Request> passes = LtxPasses(resolved.request);
    ASSERT_EQ(passes.size(), 2u);
    EXPECT_EQ(passes[0].height, 256);
    EXPECT_EQ(passes[0].width, 384);
    EXPECT_EQ(passes[0].num_inference_steps, 3);
    EXPECT_EQ(passes[0].knobs.values.at(knob), KnobValue(list));
    EXPECT_EQ(passes[1].height, 512);
    EXPECT_EQ(passes[1].num_inference_steps, 5);
    EXPECT_EQ(passes[1].knobs.values.at("denoise_strength"), KnobValue(0.4));
    EXPECT_FALSE(passes[1].knobs.values.contains(knob));
  }
}

TEST_F(TwoPassTest, WhatCannotBeIsNamed) {
  std::map<std::string, KnobValue>& knobs = request_.knobs.values;
  knobs["adain_factor"] = 0.5;
  knobs["tone_map_compression_ratio"] = 0.5;
  EXPECT_THAT(ViolatedFields(), ElementsAre("ltx.adain_factor", "ltx.tone_map_compression_ratio"));
  knobs = {{"passes", int64_t{2}}, {"second_pass_strength", 1.0}};
  EXPECT_THAT(ViolatedFields(), ElementsAre("ltx.second_pass_strength"));
  knobs = {{"passes", int64_t{2}}};
  request_.height = 480;
  EXPECT_THAT(ViolatedFields(), ElementsAre("height"));
  request_.height = 512;
  knobs["second_pass_strength"] = 0.05;  // of 10 steps
  EXPECT_THAT(ViolatedFields(), ElementsAre("ltx.second_pass_strength"));
  knobs = {{"passes", int64_t{2}}, {"temporal_tile_size", int64_t{80}}};
  EXPECT_THAT(ViolatedFields(), ElementsAre("ltx.passes"));
  knobs = {{"passes", int64_t{2}}};
  Configure(R"({"spatial_upsample": false, "temporal_upsample": true})");
  EXPECT_THAT(ViolatedFields(), ElementsAre("ltx.passes"));
}

// A folder of LTX-Video's VAE and a latent upsampler.
class UpscaleTest : public testing::ResolvingTest {
 protected:
  UpscaleTest() {
    folder_.Write("model_index.json",
                  R"({"_class_name": "LTXLatentUpsamplePipeline",
                      "latent_upsampler": ["ltx", "LTXLatentUpsamplerModel"],
                      "vae": ["diffusers", "AutoencoderKLLTXVideo"]})");
    for (const char* const name : {"latent_upsampler", "vae"}) {
      folder_.Write(std::string(name) + "/diffusion_pytorch_model.safetensors",
                    testing::SafetensorsOf({{"weight", {1}, {0}}}));
    }
    folder_.Write("vae/config.json", "{}");
    Configure("{}");
    request_.task = Task::kUpscale;
    request_.conditions = {{.kind = ConditionKind::kVideo,
                            .size = VideoSize{.height = 100, .width = 200, .num_frames = 30}}};
  }

  absl::StatusOr<ModelDescription> Describe(const OriginalFiles& original_files = {}) const {
    return DescribeModel(folder_.path(), original_files);
  }
  void Configure(const std::string& upsampler) {
    folder_.Write("latent_upsampler/config.json", upsampler);
    const absl::StatusOr<ModelDescription> model = Describe();
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *model;
  }
  Request Resolved() const {
    const ResolvedRequest resolved = Resolve();
    EXPECT_TRUE(FirstViolation(resolved.violations).ok()) << FirstViolation(resolved.violations);
    return resolved.request;
  }

  TempDir folder_;
};

TEST_F(UpscaleTest, OnlyUpscales) {
  ASSERT_EQ(model_.Tasks().size(), 1u);
  EXPECT_EQ(model_.Tasks()[0].task, Task::kUpscale);
  EXPECT_THAT(model_.WeightedComponents(), ElementsAre("latent_upsampler", "vae"));
  request_.task = Task::kUnspecified;
  EXPECT_EQ(Resolved().task, Task::kUpscale);
  request_.task = Task::kVideoToVideo;
  EXPECT_THAT(ViolatedFields(), ElementsAre("task"));
}

TEST_F(UpscaleTest, TakesTheFirstFramesOfAVideo) {
  request_.conditions[0].num_frames = 20;
  const Request effective = Resolved();
  EXPECT_EQ(effective.num_frames, 17);
  EXPECT_EQ(effective.conditions[0].num_frames, 20);
  request_.num_frames = 25;
  EXPECT_THAT(ViolatedFields(), ElementsAre("num_frames"));
}

TEST_F(UpscaleTest, TakesTheVideoAsItIsRoundedDown) {
  const Request effective = Resolved();
  EXPECT_EQ(effective.height, 96);
  EXPECT_EQ(effective.width, 192);
  EXPECT_EQ(effective.num_frames, 25);
  EXPECT_EQ(effective.fps, 25);
  EXPECT_EQ(effective.knobs.values.at("decode_noise_scale"), KnobValue(0.0));
  EXPECT_FALSE(effective.knobs.values.contains("max_sequence_length"));
  EXPECT_EQ(model_.details->OutputOf(effective),
            (VideoSize{.height = 192, .width = 384, .num_frames = 25}));
  // A multiple of 8 frames has one latent less.
  request_.conditions[0].size->num_frames = 24;
  EXPECT_EQ(Resolved().num_frames, 17);
  // Smaller than a latent.
  request_.conditions[0].size->height = 20;
  EXPECT_EQ(Resolved().height, 32);
}

TEST_F(UpscaleTest, TheRequestAndTheOperatorGoBeforeTheVideo) {
  model_.overrides.height = 64;
  request_.width = 128;
  request_.num_frames = 9;
  const Request effective = Resolved();
  EXPECT_EQ(effective.height, 64);
  EXPECT_EQ(effective.width, 128);
  EXPECT_EQ(effective.num_frames, 9);
}

TEST_F(UpscaleTest, AVideoOfUnknownSizeIsThatOfDiffusers) {
  request_.conditions[0].size.reset();
  const Request effective = Resolved();
  EXPECT_EQ(effective.height, 512);
  EXPECT_EQ(effective.width, 704);
  EXPECT_EQ(effective.num_frames, 161);
}

TEST_F(UpscaleTest, MoreFramesThanThereAreAreRefused) {
  request_.conditions[0].size->num_frames = 25;
  request_.num_frames = 25;
  EXPECT_THAT(ViolatedFields(), ElementsAre());
  request_.num_frames = 33;
  EXPECT_THAT(ViolatedFields(), ElementsAre("num_frames"));
}

TEST_F(UpscaleTest, DenoisesNothing) {
  // What the operator sets for other tasks is not this one's.
  model_.overrides.num_inference_steps = 7;
  model_.overrides.guidance_scale = 5;
  EXPECT_FALSE(Resolved().num_inference_steps || Resolved().guidance_scale);
  EXPECT_FALSE(model_.Tasks()[0].defaults.num_inference_steps);
  request_.prompt = "a cat";
  request_.negative_prompt = "";
  request_.num_inference_steps = 7;
  request_.guidance_scale = 5;
  request_.knobs.values["frame_rate"] = 24.0;
  EXPECT_THAT(ViolatedFields(),
              UnorderedElementsAre("prompt", "negative_prompt", "num_inference_steps",
                                   "guidance_scale", "ltx.frame_rate"));
}

TEST_F(UpscaleTest, TakesOneVideoFromItsBeginning) {
  request_.conditions[0].kind = ConditionKind::kImage;
  EXPECT_THAT(ViolatedFields(), ElementsAre("conditions"));
  request_.conditions.clear();
  EXPECT_THAT(ViolatedFields(), ElementsAre("conditions"));
}

TEST_F(UpscaleTest, ATemporalUpsamplerDoublesFramesAndTheirRate) {
  Configure(R"({"spatial_upsample": false, "temporal_upsample": true})");
  const Request effective = Resolved();
  EXPECT_EQ(effective.fps, 50);
  EXPECT_EQ(model_.details->OutputOf(effective),
            (VideoSize{.height = 96, .width = 192, .num_frames = 49}));
}

TEST_F(UpscaleTest, TheRateIsTheVideos) {
  request_.conditions[0].fps = 24;
  EXPECT_EQ(Resolved().fps, 24);
  Configure(R"({"spatial_upsample": false, "temporal_upsample": true})");
  EXPECT_EQ(Resolved().fps, 48);
  model_.overrides.fps = 30;
  EXPECT_EQ(Resolved().fps, 30);
  request_.fps = 12;
  EXPECT_EQ(Resolved().fps, 12);
}

TEST_F(UpscaleTest, WhatComesOutIsLimited) {
  request_.conditions[0].size = VideoSize{.height = 4128, .width = 64, .num_frames = 9};
  EXPECT_THAT(ViolatedFields(), ElementsAre("height"));
  // 4096 x 4096 x 17 go in and a billion pixels are more than come out.
  request_.conditions[0].size = VideoSize{.height = 4096, .width = 4096, .num_frames = 17};
  EXPECT_THAT(ViolatedFields(), ElementsAre("num_frames"));
}

TEST_F(UpscaleTest, RefusesUpsamplersThatCannotBe) {
  for (const char* const wrong :
       {R"({"spatial_upsample": false})", R"({"dims": 2, "temporal_upsample": true})",
        R"({"dims": 1})", R"({"mid_channels": 48})", R"({"in_channels": 0})",
        R"({"num_blocks_per_stage": -1})", R"({"dims": "3"})"}) {
    folder_.Write("latent_upsampler/config.json", wrong);
    const absl::Status status = Describe().status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << wrong << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("latent_upsampler/config.json"));
  }
}

TEST_F(UpscaleTest, HasNoTransformerToBeReplaced) {
  const absl::Status status = Describe({{"transformer", "transformer.gguf"}}).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("names none"));
}

}  // namespace
}  // namespace kino::engine
