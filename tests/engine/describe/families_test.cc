// What each family says of its published models, by their configs.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "engine/describe/describe.h"
#include "tests/support/bare_model.h"
#include "tests/support/published_models.h"
#include "tests/support/resolving_test.h"
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

// A CogVideoX model and what it is asked to make of a video.
class CogVideoXVideoTest : public testing::ResolvingTest {
 protected:
  CogVideoXVideoTest() {
    model_ = Describe({.pipeline_class = "CogVideoXVideoToVideoPipeline", .scheduler = kDdim});
    request_.task = Task::kVideoToVideo;
    request_.prompt = "a cat";
    request_.conditions = {{.kind = ConditionKind::kVideo}};
    HasFrames(13);
  }

  void HasFrames(int frames) {
    request_.conditions[0].size = VideoSize{.height = 64, .width = 96, .num_frames = frames};
  }
  // How many of the video's frames are used, and how many come out.
  std::pair<int, int> UsedAndMade() const {
    const ResolvedRequest resolved = Resolve();
    EXPECT_TRUE(resolved.violations.empty()) << FirstViolation(resolved.violations);
    const Request& effective = resolved.request;
    const Request again = ResolveRequest(model_, effective, 1).request;
    EXPECT_EQ(again.num_frames, effective.num_frames);
    EXPECT_EQ(again.conditions[0].num_frames, effective.conditions[0].num_frames);
    // A worker does not know how large the video is.
    Request stored = effective;
    stored.conditions[0].size.reset();
    EXPECT_EQ(ResolveRequest(model_, stored, 1).request, stored);
    return {effective.conditions[0].num_frames.value_or(0), *effective.num_frames};
  }
  std::string Violation() const {
    const ResolvedRequest resolved = Resolve();
    return std::string(FirstViolation(resolved.violations).message());
  }
};

TEST_F(CogVideoXVideoTest, AllFramesAreUsedAndTheRequestSaysHowManyComeOut) {
  for (int frames = 1; frames <= 100; ++frames) {
    HasFrames(frames);
    EXPECT_EQ(UsedAndMade(), std::pair(frames, OfCogVideoX(frames)));
  }
}

TEST_F(CogVideoXVideoTest, TheRequestMaySayHowManyAreUsed) {
  HasFrames(100);
  for (int frames = 1; frames <= 100; ++frames) {
    request_.num_frames = frames;
    EXPECT_EQ(UsedAndMade(), std::pair(frames, OfCogVideoX(frames)));
  }
  request_.num_frames.reset();
  request_.conditions[0].num_frames = 15;
  EXPECT_EQ(UsedAndMade(), std::pair(15, 16));
  request_.num_frames = 16;
  EXPECT_EQ(UsedAndMade(), std::pair(15, 16));
}

TEST_F(CogVideoXVideoTest, TheOperatorsNumberIsTheMostWithoutAnother) {
  model_.overrides.num_frames = 25;
  EXPECT_EQ(UsedAndMade(), std::pair(13, 16));
  HasFrames(81);
  EXPECT_EQ(UsedAndMade(), std::pair(25, 25));
  request_.num_frames = 33;
  EXPECT_EQ(UsedAndMade(), std::pair(33, 33));
}

TEST_F(CogVideoXVideoTest, AVideoOfUnknownSizeHasTheFramesOfTheModel) {
  request_.conditions[0].size.reset();
  EXPECT_EQ(UsedAndMade(), std::pair(49, 49));
  model_.overrides.num_frames = 25;
  EXPECT_EQ(UsedAndMade(), std::pair(25, 25));
}

TEST_F(CogVideoXVideoTest, WhatIsNotThereOrDoesNotFitIsRefused) {
  request_.num_frames = 14;
  EXPECT_EQ(Violation(), "num_frames: the video has 13 frames, expected at most that many, got 14");
  request_.num_frames = 9;
  request_.conditions[0].num_frames = 13;
  EXPECT_EQ(Violation(),
            "num_frames: 16 come out of the 13 frames of conditions[0].num_frames, got 9; leave "
            "one of the two out");
  request_.num_frames.reset();
  request_.conditions[0].num_frames = 14;
  EXPECT_EQ(Violation(), "conditions[0].num_frames: the video has 13 frames, got 14");
  request_.conditions[0].num_frames = 0;
  EXPECT_EQ(Violation(), "conditions[0].num_frames: expected 1 or more, got 0");
}

TEST_F(CogVideoXVideoTest, OfLatentFramesThatDoNotFillAPatchTheNextFewerAreNamed) {
  model_ =
      Describe({.pipeline_class = "CogVideoXPipeline",
                .transformer = {{"patch_size_t", 2}, {"use_rotary_positional_embeddings", true}},
                .scheduler = kDdim});
  HasFrames(49);
  EXPECT_EQ(
      Violation(),
      "num_frames: the VAE makes 13 latent ones of 49 frames, expected a multiple of 2, which "
      "it makes of 48");
  HasFrames(3);
  EXPECT_EQ(
      Violation(),
      "num_frames: the VAE makes 1 latent ones of 3 frames, expected a multiple of 2, which it "
      "makes of 8");
  HasFrames(13);
  EXPECT_EQ(UsedAndMade(), std::pair(13, 16));
}

TEST(ConditionsTest, AnImageHasOneFrame) {
  const ModelDescription model = Describe({.pipeline_class = "LTXPipeline"});
  Request request;
  request.prompt = "a cat";
  request.conditions = {{.kind = ConditionKind::kImage, .num_frames = 1}};
  EXPECT_EQ(FirstViolation(ResolveRequest(model, request, 1).violations).message(),
            "conditions[0].num_frames: an image has one frame; leave it out");
}

// What it lacks for it is told.
TEST(TaskTest, AModelOfOneTaskDoesThat) {
  const ModelDescription model = Describe({.pipeline_class = "MochiPipeline"});
  Request request;
  request.prompt = "a cat";
  request.conditions = {{.kind = ConditionKind::kImage}};
  EXPECT_EQ(FirstViolation(ResolveRequest(model, request, 1).violations).message(),
            "conditions: TEXT_TO_VIDEO takes none, got 1");
  request.task = Task::kImageToVideo;
  EXPECT_EQ(FirstViolation(ResolveRequest(model, request, 1).violations).message(),
            "task: this model does TEXT_TO_VIDEO; got IMAGE_TO_VIDEO");
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
