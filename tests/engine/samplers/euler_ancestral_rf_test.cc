// Tables and steps against recordings of diffusers' own scheduler.
#include "engine/samplers/euler_ancestral_rf.h"

#include <ATen/core/Tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/core/json.h"
#include "tests/engine/samplers/recorded_floats.h"
#include "tests/support/fixture_folder.h"

namespace kino::engine {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class EulerAncestralRfTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    FixtureFolder folder;
    ASSERT_NO_FATAL_FAILURE(
        folder.RunOracle("samplers/euler_ancestral_rf_fixtures.py", std::to_string(TestSeed())));
    auto cases = ReadJsonFile(folder.path() + "/cases.json");
    ASSERT_TRUE(cases.ok()) << cases.status();
    cases_ = std::make_unique<json>(*std::move(cases));
  }
  static void TearDownTestSuite() { cases_.reset(); }

  static std::unique_ptr<json> cases_;
};

std::unique_ptr<json> EulerAncestralRfTest::cases_;

TEST_F(EulerAncestralRfTest, SchedulesAreDiffusersBitForBit) {
  int compared = 0;
  for (const json& c : (*cases_)["schedules"]) {
    SCOPED_TRACE(c["config"].dump() + ", " + c["request"].dump());
    json config = c["config"];
    config["_class_name"] = "FlowMatchEulerDiscreteScheduler";
    const auto table = FlowMatchEulerConfig::FromJson(config, "config");
    ASSERT_TRUE(table.ok()) << table.status();
    const auto schedule = MakeAncestralRfSchedule(
        *table, {.num_inference_steps = c["request"].value("num_inference_steps", 0),
                 .sigmas = c["request"].value("sigmas", std::vector<double>())});
    ASSERT_TRUE(schedule.ok()) << schedule.status();
    // Karras' powers are numpy's own.
    const int64_t ulps = config["use_karras_sigmas"] == true ? 1 : 0;
    ExpectWithinUlps(schedule->sigmas, Floats(c["sigmas"]), ulps);
    ExpectWithinUlps(schedule->timesteps, Floats(c["timesteps"]), ulps);
    ++compared;
  }
  EXPECT_EQ(compared, 48);
}

TEST_F(EulerAncestralRfTest, LoopsOfStepsAreDiffusersBitForBit) {
  int drawn = 0, not_drawn = 0;
  for (const json& loop : (*cases_)["steps"]) {
    const std::string dtype = loop["dtype"];
    SCOPED_TRACE(dtype + ", " + loop["config"].dump());
    const auto config = EulerAncestralRfConfig::FromJson(loop["config"], "config");
    ASSERT_TRUE(config.ok()) << config.status();
    const std::vector<float> sigmas = Floats(loop["sigmas"]);
    at::Tensor sample = TensorOf(loop["sample"], dtype, {2, 3, 5});
    for (size_t i = 0; i + 1 < sigmas.size(); ++i) {
      ASSERT_EQ(DrawsNoise(*config, sigmas[i + 1]), !loop["noises"][i].empty()) << "step " << i;
      at::Tensor noise;
      if (!loop["noises"][i].empty()) noise = TensorOf(loop["noises"][i], "float32", {2, 3, 5});
      ++(noise.defined() ? drawn : not_drawn);
      sample = EulerAncestralRfStep(*config, sample, TensorOf(loop["outputs"][i], dtype, {2, 3, 5}),
                                    noise, sigmas[i], sigmas[i + 1]);
      ASSERT_TRUE(sample.equal(TensorOf(loop["results"][i], dtype, {2, 3, 5}))) << "step " << i;
    }
  }
  EXPECT_GT(drawn, 30);
  EXPECT_GT(not_drawn, 20);
}

TEST(EulerAncestralRfConfigTest, WhatCannotBeDoneIsRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"_class_name": "DDIMScheduler"})", "_class_name is 'DDIMScheduler'"},
      {R"({"eta": "much"})", "'eta'"},
      {R"({"s_noise": []})", "'s_noise'"},
  };
  for (const auto& [text, says] : cases) {
    const auto status = EulerAncestralRfConfig::FromJson(json::parse(text), "the file").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(says));
    EXPECT_THAT(std::string(status.message()), HasSubstr("the file"));
  }
}

}  // namespace
}  // namespace kino::engine
