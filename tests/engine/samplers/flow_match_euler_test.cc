// Tables and steps against recordings of diffusers' own scheduler.
#include "engine/samplers/flow_match_euler.h"

#include <ATen/core/Tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
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

class FlowMatchEulerTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    FixtureFolder folder;
    ASSERT_NO_FATAL_FAILURE(
        folder.RunOracle("samplers/flow_match_fixtures.py", std::to_string(TestSeed())));
    auto cases = ReadJsonFile(folder.path() + "/cases.json");
    ASSERT_TRUE(cases.ok()) << cases.status();
    cases_ = std::make_unique<json>(*std::move(cases));
  }
  static void TearDownTestSuite() { cases_.reset(); }

  static std::unique_ptr<json> cases_;
};

std::unique_ptr<json> FlowMatchEulerTest::cases_;

TEST_F(FlowMatchEulerTest, SchedulesAreDiffusersBitForBit) {
  int compared = 0;
  for (const json& c : (*cases_)["schedules"]) {
    SCOPED_TRACE(c["config"].dump() + " " + c["request"].dump().substr(0, 200) + " mu " +
                 c["mu"].dump());
    const auto config = FlowMatchEulerConfig::FromJson(c["config"], "config");
    EXPECT_TRUE(config.ok()) << config.status();
    if (!config.ok()) continue;
    ScheduleRequest request;
    if (c["request"].contains("num_inference_steps"))
      request.num_inference_steps = c["request"]["num_inference_steps"];
    if (c["request"].contains("sigmas"))
      request.sigmas = c["request"]["sigmas"].get<std::vector<double>>();
    if (c["request"].contains("timesteps"))
      request.timesteps = c["request"]["timesteps"].get<std::vector<double>>();
    if (!c["mu"].is_null()) request.mu = c["mu"].get<double>();
    const auto schedule = MakeSchedule(*config, request);
    if (!c["finite"].get<bool>()) {
      EXPECT_EQ(schedule.status().code(), absl::StatusCode::kInvalidArgument);
      continue;
    }
    EXPECT_TRUE(schedule.ok()) << schedule.status();
    if (!schedule.ok()) continue;
    // numpy's own pow and exp may differ from the C library's in the last bit of a double.
    const int64_t ulps = config->spacing == FlowMatchEulerConfig::Spacing::kGiven ? 0 : 1;
    ExpectWithinUlps(schedule->sigmas, Floats(c["sigmas"]), ulps);
    ExpectWithinUlps(schedule->timesteps, Floats(c["timesteps"]), ulps);
    ++compared;
  }
  EXPECT_GT(compared, 800);
}

TEST_F(FlowMatchEulerTest, LinearQuadraticSchedulesAreDiffusersBitForBit) {
  for (const json& c : (*cases_)["linear_quadratic"]) {
    const std::vector<double> sigmas = LinearQuadraticSchedule(c["steps"]);
    const std::vector<float> rounded(sigmas.begin(), sigmas.end());
    std::vector<float> timesteps = rounded;
    for (float& t : timesteps) t *= 1000;
    SCOPED_TRACE(c["steps"].dump());
    ExpectWithinUlps(rounded, Floats(c["sigmas"]), 0);
    ExpectWithinUlps(timesteps, Floats(c["timesteps"]), 0);
  }
}

TEST_F(FlowMatchEulerTest, ShiftsAreDiffusersBitForBit) {
  for (const json& c : (*cases_)["shifts"]) {
    const auto config = FlowMatchEulerConfig::FromJson(c["config"], "config");
    EXPECT_TRUE(config.ok()) << config.status();
    if (!config.ok()) continue;
    EXPECT_EQ(CalculateShift(*config, c["length"]), c["mu"].get<double>()) << c;
  }
}

TEST_F(FlowMatchEulerTest, LoopsOfStepsAreDiffusersBitForBit) {
  for (const json& loop : (*cases_)["steps"]) {
    const std::string dtype = loop["dtype"];
    SCOPED_TRACE(dtype);
    const std::vector<float> sigmas = Floats(loop["sigmas"]);
    at::Tensor sample = TensorOf(loop["sample"], "float32", {2, 3, 5});
    for (size_t i = 0; i + 1 < sigmas.size(); ++i) {
      const at::Tensor output = TensorOf(loop["outputs"][i], dtype, {2, 3, 5});
      sample = EulerStep(sample, output, sigmas[i], sigmas[i + 1]);
      EXPECT_EQ(sample.scalar_type(), output.scalar_type()) << "step " << i;
      const bool is_equal = sample.scalar_type() == output.scalar_type() &&
                            sample.equal(TensorOf(loop["results"][i], dtype, {2, 3, 5}));
      EXPECT_TRUE(is_equal) << "step " << i;
      if (!is_equal) break;  // the others follow from it
    }
  }
}

TEST_F(FlowMatchEulerTest, StepsByTokenAreDiffusersBitForBit) {
  for (const json& c : (*cases_)["token_steps"]) {
    SCOPED_TRACE(c["dtype"].dump());
    FlowMatchSchedule schedule;
    schedule.sigmas = Floats(c["sigmas"]);
    const at::Tensor sample = TensorOf(c["sample"], "float32", {2, 4, 3});
    const at::Tensor output = TensorOf(c["output"], c["dtype"], {2, 4, 3}).to(at::kFloat);
    const at::Tensor expected = TensorOf(c["result"], "float32", {2, 4, 3});
    const std::vector<float> tokens = Floats(c["tokens"]);
    for (int64_t i = 0; i < 8; ++i) {
      const float sigma = tokens[static_cast<size_t>(i)] / 1000;
      // Upstream takes the difference, and the output, with the other sign.
      const at::Tensor result = EulerStep(sample[i / 4][i % 4], -output[i / 4][i % 4], sigma,
                                          NextLowerSigma(schedule, sigma));
      EXPECT_TRUE(result.equal(expected[i / 4][i % 4])) << "token " << i;
    }
  }
}

TEST(FlowMatchEulerConfigTest, ReadsEveryKeyAndKeepsDefaults) {
  const auto config = FlowMatchEulerConfig::FromJson(
      json::parse(
          R"({"num_train_timesteps": 500, "shift": 2.5, "use_dynamic_shifting": true, "base_shift": 0.95, "max_shift": 2.05,
                      "base_image_seq_len": 1024, "max_image_seq_len": 8192, "invert_sigmas": true, "shift_terminal": 0.1,
                      "use_karras_sigmas": true, "time_shift_type": "linear", "unknown": [1], "_diffusers_version": "0.31.0"})"),
      "config");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->num_train_timesteps, 500);
  EXPECT_EQ(config->shift, 2.5);
  EXPECT_TRUE(config->use_dynamic_shifting);
  EXPECT_EQ(config->base_shift, 0.95);
  EXPECT_EQ(config->max_shift, 2.05);
  EXPECT_EQ(config->base_image_seq_len, 1024);
  EXPECT_EQ(config->max_image_seq_len, 8192);
  EXPECT_TRUE(config->invert_sigmas);
  EXPECT_EQ(config->shift_terminal, 0.1);
  EXPECT_EQ(config->spacing, FlowMatchEulerConfig::Spacing::kKarras);
  EXPECT_EQ(config->time_shift_type, FlowMatchEulerConfig::TimeShiftType::kLinear);
  const auto defaults =
      FlowMatchEulerConfig::FromJson(json::parse(R"({"shift_terminal": null})"), "config");
  ASSERT_TRUE(defaults.ok()) << defaults.status();
  EXPECT_EQ(defaults->max_shift, 1.15);
  EXPECT_EQ(defaults->shift_terminal, 0);
}

TEST(FlowMatchEulerConfigTest, WhatCannotBeDoneIsRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"use_beta_sigmas": true})", "use_beta_sigmas is not supported"},
      {R"({"stochastic_sampling": true})", "stochastic_sampling is not supported"},
      {R"({"use_karras_sigmas": true, "use_exponential_sigmas": true})", "both set"},
      {R"({"time_shift_type": "cubic"})", "time_shift_type is 'cubic'"},
      {R"({"_class_name": "DDIMScheduler"})", "_class_name is 'DDIMScheduler'"},
      {R"({"num_train_timesteps": 0})", "num_train_timesteps is 0"},
      {R"({"num_train_timesteps": 1e9})", "'num_train_timesteps'"},
      {R"({"shift": 0})", "shift is 0"},
      {R"({"shift": "big"})", "'shift'"},
      {R"({"shift_terminal": 1})", "shift_terminal is 1"},
      {R"({"base_image_seq_len": 4096})", "both 4096"},
  };
  for (const auto& [text, says] : cases) {
    const auto status = FlowMatchEulerConfig::FromJson(json::parse(text), "the file").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(says));
    EXPECT_THAT(std::string(status.message()), HasSubstr("the file"));
  }
}

TEST(MakeScheduleTest, BadRequestsAreRefusedByName) {
  FlowMatchEulerConfig dynamic;
  dynamic.use_dynamic_shifting = true;
  FlowMatchEulerConfig terminal;
  terminal.shift_terminal = 0.1;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const struct {
    FlowMatchEulerConfig config;
    ScheduleRequest request;
    const char* says;
  } cases[] = {
      {{}, {}, "num_inference_steps is 0"},
      {{}, {.num_inference_steps = 10001}, "num_inference_steps is 10001"},
      {{}, {.sigmas = std::vector<double>{1, nan}}, "sigmas[1] is not finite"},
      {{}, {.timesteps = std::vector<double>(10001)}, "timesteps: 10001 values"},
      {{},
       {.sigmas = std::vector<double>{1, 0.5}, .timesteps = std::vector<double>{1000}},
       "expected as many"},
      {dynamic, {.num_inference_steps = 5}, "mu must be given"},
      {dynamic, {.num_inference_steps = 5, .mu = nan}, "mu must be given"},
      {terminal, {.sigmas = std::vector<double>{1}}, "at least 2 steps"},
      {terminal, {.timesteps = std::vector<double>{1000}}, "at least 2 steps"},
      {terminal, {.num_inference_steps = 1}, "at least 2 steps"},
      {terminal, {.sigmas = std::vector<double>{1, 1}}, "sigma 0 of 2 comes out as"},
  };
  for (const auto& c : cases) {
    const auto status = MakeSchedule(c.config, c.request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.says;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.says));
  }
}

TEST(FirstStepTest, TimestepThatStandsTwiceBeginsAtItsSecondPlace) {
  const FlowMatchSchedule schedule{.sigmas = {1, 0.5f, 0.5f, 0.5f, 0},
                                   .timesteps = {1000, 500, 500, 500}};
  EXPECT_EQ(*FirstStep(schedule, 1000), 0);
  EXPECT_EQ(*FirstStep(schedule, 500), 2);
  EXPECT_EQ(FirstStep(schedule, 1).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace kino::engine
