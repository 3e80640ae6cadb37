// What each family says of its published models, by their configs.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "engine/describe/describe.h"
#include "tests/support/bare_model.h"
#include "tests/support/published_models.h"
#include "tests/support/temp_dir.h"

namespace kino::engine {
namespace {

using ::kino::testing::BareModel;
using ::kino::testing::PublishedModel;
using ::kino::testing::PublishedModels;
using ::kino::testing::TempDir;
using Json = nlohmann::json;

const Json kDdim = {{"prediction_type", "v_prediction"}};
const Json kEuler = {{"beta_schedule", "linear"}};

ModelDescription Describe(const BareModel& bare) {
  const TempDir folder;
  WriteBareModel(folder, bare);
  const absl::StatusOr<ModelDescription> model = DescribeModel(folder.path());
  EXPECT_TRUE(model.ok()) << model.status();
  return model.value_or(ModelDescription());
}

// Frames that diffusers' pipelines give where so many are asked for.
int OneAndMultiples(int asked, int ratio) { return (asked - 1) / ratio * ratio + 1; }
int OfCogVideoX(int asked) {
  const int latents = (asked - 1) / 4 + 1;
  return latents % 2 == 1 ? (latents - 1) * 4 + 1 : latents * 4;
}

struct FramesCase {
  BareModel model;
  int (*frames)(int asked);
};

class FramesTest : public ::testing::TestWithParam<FramesCase> {};

TEST_P(FramesTest, AnEffectiveRequestSaysWhatComesOut) {
  const ModelDescription model = Describe(GetParam().model);
  const auto effective = [&](Task task, int frames) {
    Request request;
    request.task = task;
    request.prompt = "a cat";
    request.num_frames = frames;
    if (task == Task::kImageToVideo) request.conditions = {Condition{}};
    const ResolvedRequest resolved = ResolveRequest(model, request, 1);
    EXPECT_TRUE(resolved.violations.empty())
        << frames << " frames: " << FirstViolation(resolved.violations);
    return *resolved.request.num_frames;
  };
  for (const TaskDescription& task : model.details->tasks()) {
    if (task.task == Task::kVideoToVideo) continue;
    for (int asked = 1; asked <= 200; ++asked) {
      const int frames = effective(task.task, asked);
      EXPECT_EQ(frames, GetParam().frames(asked)) << TaskName(task.task) << ", asked " << asked;
      // An effective request resolves to itself.
      EXPECT_EQ(effective(task.task, frames), frames) << TaskName(task.task) << ", asked " << asked;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Families, FramesTest,
    ::testing::Values(
        FramesCase{{.pipeline_class = "LTXPipeline"}, [](int n) { return OneAndMultiples(n, 8); }},
        FramesCase{{.pipeline_class = "MochiPipeline"},
                   [](int n) { return OneAndMultiples(n, 6); }},
        FramesCase{{.pipeline_class = "AllegroPipeline", .scheduler = kEuler},
                   [](int n) { return n; }},
        FramesCase{{.pipeline_class = "CogVideoXPipeline", .scheduler = kDdim}, OfCogVideoX},
        FramesCase{
            {.pipeline_class = "CogVideoXPipeline",
             .transformer = {{"patch_size_t", 2}, {"use_rotary_positional_embeddings", true}},
             .scheduler = kDdim},
            OfCogVideoX},
        FramesCase{{.pipeline_class = "CogVideoXImageToVideoPipeline",
                    .transformer = {{"in_channels", 32}},
                    .scheduler = kDdim},
                   OfCogVideoX}));

// As many of a video's frames are used as the request says, and that is how they are encoded.
TEST(FramesTest, OfAVideoTheRequestSaysHowManyAreUsed) {
  const ModelDescription model =
      Describe({.pipeline_class = "CogVideoXVideoToVideoPipeline", .scheduler = kDdim});
  for (int asked = 1; asked <= 200; ++asked)
    EXPECT_EQ(model.details->FramesOf(Task::kVideoToVideo, asked), asked);
}

// CogVideoXImageToVideoPipeline's call has a number of its own, the others' go by the transformer.
TEST(DefaultsTest, OfCogVideoXGoByItsClassAndItsGeneration) {
  const auto defaults = [](const std::string& pipeline_class, Json transformer) {
    transformer["sample_frames"] = 81;
    const ModelDescription model = Describe({.pipeline_class = pipeline_class,
                                             .transformer = std::move(transformer),
                                             .scheduler = kDdim});
    EXPECT_EQ(model.details->vae_tiles().overlap_height, 1.0 / 6);
    EXPECT_EQ(model.details->vae_tiles().overlap_width, 1.0 / 5);
    const Request& request = model.details->tasks()[0].defaults;
    return std::pair(*request.num_frames, *request.fps);
  };
  const Json second = {{"patch_size_t", 2}, {"use_rotary_positional_embeddings", true}};
  Json sees_image = second;
  sees_image["in_channels"] = 32;
  EXPECT_EQ(defaults("CogVideoXPipeline", Json::object()), std::pair(81, 8.0));
  EXPECT_EQ(defaults("CogVideoXPipeline", second), std::pair(81, 16.0));
  EXPECT_EQ(defaults("CogVideoXImageToVideoPipeline", sees_image), std::pair(49, 16.0));
}

// Its transformer has to see the image beside the latents.
TEST(TasksTest, AnImageToVideoFolderWithATransformerForTextIsRefused) {
  for (const auto& [channels, is_ok] : {std::pair{16, false}, std::pair{32, true}}) {
    const TempDir folder;
    WriteBareModel(folder, {.pipeline_class = "CogVideoXImageToVideoPipeline",
                            .transformer = {{"in_channels", channels}},
                            .scheduler = kDdim});
    const absl::Status status = DescribeModel(folder.path()).status();
    EXPECT_EQ(status.code(), is_ok ? absl::StatusCode::kOk : absl::StatusCode::kUnimplemented)
        << status;
  }
}

TEST(FramesTest, NoFramesAndTooManyAreRefused) {
  const ModelDescription model = Describe({.pipeline_class = "LTXPipeline"});
  for (const int frames : {-7, 0, 16393, 2147483647}) {
    Request request;
    request.prompt = "a cat";
    request.height = request.width = 32;
    request.num_frames = frames;
    const auto violations = ResolveRequest(model, request, 1).violations;
    ASSERT_FALSE(violations.empty()) << frames;
    EXPECT_EQ(violations.front().field, "num_frames");
  }
}

// LTXConditionPipeline says as little of a model's generation as LTXImageToVideoPipeline does.
BareModel OfAKnownClass(BareModel model) {
  if (model.pipeline_class == "LTXConditionPipeline") model.pipeline_class = "LTXPipeline";
  return model;
}

TEST(GenerationTest, IsToldByTheConfigs) {
  for (const PublishedModel& published : PublishedModels()) {
    BareModel model = OfAKnownClass(published.model);
    EXPECT_EQ(Describe(model).generation, published.generation) << published.config;
    // Another number of layers is no published model's.
    model.transformer["num_layers"] = 3;
    EXPECT_EQ(Describe(model).generation, "") << published.config;
  }
}

TEST(GenerationTest, WhatMixesTwoOfThemIsNone) {
  std::map<std::string, BareModel> models;
  for (const PublishedModel& published : PublishedModels())
    models[published.config] = OfAKnownClass(published.model);
  BareModel old_vae = models["ltx-0.9.7-dev"];
  old_vae.vae = models["ltx-0.9.1"].vae;
  EXPECT_EQ(Describe(old_vae).generation, "");
  BareModel no_timestep = models["ltx-0.9.1"];
  no_timestep.vae["timestep_conditioning"] = false;
  EXPECT_EQ(Describe(no_timestep).generation, "");
  BareModel sees_no_image = models["cogvideox1.5-5b-i2v"];
  sees_no_image.transformer.erase("ofs_embed_dim");
  EXPECT_EQ(Describe(sees_no_image).generation, "");
  BareModel turned = models["cogvideox-2b"];
  turned.transformer["use_rotary_positional_embeddings"] = true;
  EXPECT_EQ(Describe(turned).generation, "");
}

TEST(GenerationTest, TheCardIsReadBesideIt) {
  const TempDir folder;
  WriteBareModel(folder, {.pipeline_class = "MochiPipeline"});
  folder.Write("README.md", "---\nlicense: apache-2.0\n---\n");
  EXPECT_EQ(DescribeModel(folder.path())->card.license, "apache-2.0");
}

}  // namespace
}  // namespace kino::engine
