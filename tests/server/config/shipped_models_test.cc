// Every file of config/models, tried on a folder with the configs of the model that it is for.
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>

#include "engine/describe/describe.h"
#include "server/config/config.h"
#include "server/config/effective_plan.h"
#include "tests/support/published_models.h"
#include "tests/support/temp_dir.h"

namespace kino::config {
namespace {

namespace fs = std::filesystem;
using ::kino::testing::PublishedModel;
using ::kino::testing::PublishedModels;
using ::kino::testing::TempDir;

const fs::path kFolder = fs::path(KINO_SOURCE_DIR) / "config" / "models";

TEST(ShippedModelsTest, ThereIsOneForEveryPublishedModel) {
  std::set<std::string> shipped, published = {"demo", "ltx-upscaler"};
  for (const auto& entry : fs::directory_iterator(kFolder)) shipped.insert(entry.path().stem());
  for (const PublishedModel& model : PublishedModels()) published.insert(model.config);
  EXPECT_EQ(shipped, published);
}

class ShippedModelTest : public ::testing::TestWithParam<PublishedModel> {};

// What a task needs beside a prompt: the first of these that the model takes.
std::vector<std::vector<engine::Condition>> ConditionsOf(engine::Task task) {
  if (task == engine::Task::kTextToVideo) return {{}};
  if (task == engine::Task::kImageToVideo) return {{engine::Condition{}}};
  return {{engine::Condition{.kind = engine::ConditionKind::kVideo}},
          {engine::Condition{.kind = engine::ConditionKind::kControlVideo}}};
}

TEST_P(ShippedModelTest, ItsDefaultsAreARequestThatTheModelTakes) {
  const absl::StatusOr<Config> config = LoadConfig(kFolder / (GetParam().config + ".yaml"));
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_EQ(config->models.size(), 1u);
  const ModelConfig& model = config->models[0];
  EXPECT_EQ(model.name, GetParam().config);
  const TempDir folder;
  WriteBareModel(folder, GetParam().model, model.variant);
  absl::StatusOr<engine::ModelDescription> description =
      engine::DescribeModel(folder.path(), {}, model.variant);
  ASSERT_TRUE(description.ok()) << description.status();
  EXPECT_EQ(description->generation, GetParam().generation);
  const absl::Status plan = CheckModelPlan(model, *description);
  EXPECT_TRUE(plan.ok()) << plan;
  description->overrides = model.defaults;
  EXPECT_EQ(model.defaults.knobs.family.empty() ? description->family : model.defaults.knobs.family,
            description->family);
  for (const engine::TaskDescription& task : description->Tasks()) {
    engine::ResolvedRequest resolved;
    for (const std::vector<engine::Condition>& conditions : ConditionsOf(task.task)) {
      engine::Request request;
      request.task = task.task;
      request.prompt = "a cat";
      request.conditions = conditions;
      // Its patches are two latent frames, and a video is not filled up, as diffusers has it.
      if (GetParam().config == "cogvideox1.5-5b" && task.task == engine::Task::kVideoToVideo)
        request.num_frames = 77;
      resolved = engine::ResolveRequest(*description, request, 1);
      if (resolved.violations.empty()) break;
    }
    EXPECT_TRUE(resolved.violations.empty())
        << engine::TaskName(task.task) << ": " << engine::FirstViolation(resolved.violations);
    // Nothing of it is adjusted, and a list of steps has as many as it says.
    if (task.task != engine::Task::kVideoToVideo) {
      EXPECT_EQ(resolved.request.num_frames, model.defaults.num_frames);
    }
    EXPECT_EQ(resolved.request.num_inference_steps, model.defaults.num_inference_steps);
  }
}

INSTANTIATE_TEST_SUITE_P(All, ShippedModelTest, ::testing::ValuesIn(PublishedModels()),
                         [](const auto& test) {
                           std::string name = test.param.config;
                           for (char& c : name) c = std::isalnum(c) ? c : '_';
                           return name;
                         });

}  // namespace
}  // namespace kino::config
