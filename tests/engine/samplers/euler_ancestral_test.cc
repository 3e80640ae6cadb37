// Tables and steps against recordings of diffusers' own scheduler.
#include "engine/samplers/euler_ancestral.h"

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

class EulerAncestralTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    FixtureFolder folder;
    ASSERT_NO_FATAL_FAILURE(
        folder.RunOracle("samplers/euler_ancestral_fixtures.py", std::to_string(TestSeed())));
    auto cases = ReadJsonFile(folder.path() + "/cases.json");
    ASSERT_TRUE(cases.ok()) << cases.status();
    cases_ = std::make_unique<json>(*std::move(cases));
  }
  static void TearDownTestSuite() { cases_.reset(); }

  static std::unique_ptr<json> cases_;
};

std::unique_ptr<json> EulerAncestralTest::cases_;

TEST_F(EulerAncestralTest, SchedulesAreDiffusers) {
  int compared = 0;
  for (const json& c : (*cases_)["schedules"]) {
    SCOPED_TRACE(c["config"].dump() + ", " + c["steps"].dump() + " steps");
    const auto config = EulerAncestralConfig::FromJson(c["config"], "config");
    EXPECT_TRUE(config.ok()) << config.status();
    if (!config.ok()) continue;
    const auto schedule = MakeSchedule(*config, c["steps"].get<int>());
    EXPECT_TRUE(schedule.ok()) << schedule.status();
    if (!schedule.ok()) continue;
    ExpectWithinUlps(schedule->timesteps, Floats(c["timesteps"]), 0);
    // torch's square root may be off by one, and with it a number between two of them.
    ExpectWithinUlps(schedule->sigmas, Floats(c["sigmas"]), 2);
    ExpectWithinUlps({schedule->init_noise_sigma}, Floats(c["init"]), 2);
    ++compared;
  }
  EXPECT_GT(compared, 80);
}

TEST_F(EulerAncestralTest, LoopsOfStepsAreDiffusersBitForBit) {
  for (const json& loop : (*cases_)["steps"]) {
    const std::string dtype = loop["dtype"];
    SCOPED_TRACE(dtype + ", " + loop["prediction"].get<std::string>());
    const auto prediction = loop["prediction"] == "epsilon"
                                ? EulerAncestralConfig::Prediction::kEpsilon
                                : EulerAncestralConfig::Prediction::kVelocity;
    const auto recorded = [&](const json& bits) { return TensorOf(bits, dtype, {2, 3, 5}); };
    const std::vector<float> sigmas = Floats(loop["sigmas"]);
    at::Tensor sample = recorded(loop["sample"]);
    for (size_t i = 0; i + 1 < sigmas.size(); ++i) {
      EXPECT_TRUE(ScaleModelInput(sample, sigmas[i]).equal(recorded(loop["inputs"][i])))
          << "the input of step " << i;
      sample = EulerAncestralStep(prediction, sample, recorded(loop["outputs"][i]),
                                  recorded(loop["noises"][i]), sigmas[i], sigmas[i + 1]);
      const bool is_equal = sample.equal(recorded(loop["results"][i]));
      EXPECT_TRUE(is_equal) << "step " << i;
      if (!is_equal) break;  // the others follow from it
    }
  }
}

TEST(EulerAncestralConfigTest, WhatCannotBeDoneIsRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"_class_name": "DDIMScheduler"})", "_class_name is 'DDIMScheduler'"},
      {R"({"trained_betas": [0.1]})", "trained_betas is not supported"},
      {R"({"rescale_betas_zero_snr": true})", "rescale_betas_zero_snr is not supported"},
      {R"({"beta_schedule": "squaredcos_cap_v2"})", "beta_schedule is 'squaredcos_cap_v2'"},
      {R"({"timestep_spacing": "wide"})", "timestep_spacing is 'wide'"},
      {R"({"prediction_type": "sample"})", "prediction_type is 'sample'"},
      {R"({"num_train_timesteps": 0})", "num_train_timesteps is 0"},
      {R"({"beta_start": 0})", "beta_start is 0"},
      {R"({"beta_end": 1})", "beta_end 1"},
      {R"({"beta_start": "low"})", "'beta_start'"},
  };
  for (const auto& [text, says] : cases) {
    const auto status = EulerAncestralConfig::FromJson(json::parse(text), "the file").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(says));
    EXPECT_THAT(std::string(status.message()), HasSubstr("the file"));
  }
}

TEST(EulerAncestralScheduleTest, NumbersOfStepsOutOfRangeAreRefused) {
  for (const int steps : {0, -1, 1001}) {
    const auto status = MakeSchedule(EulerAncestralConfig(), steps).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("num_inference_steps is " + std::to_string(steps)));
  }
}

}  // namespace
}  // namespace kino::engine
