// Tables and steps against recordings of diffusers' own schedulers.
#include "engine/samplers/ddim.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <memory>
#include <string>
#include <vector>

#include "engine/core/json.h"
#include "engine/samplers/first_step.h"
#include "tests/support/fixture_folder.h"

namespace kino::engine {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

// Of a double table, whose products torch may take in another order.
constexpr double kTableTolerance = 1e-12;

class DdimTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    FixtureFolder folder;
    ASSERT_NO_FATAL_FAILURE(
        folder.RunOracle("samplers/ddim_fixtures.py", std::to_string(TestSeed())));
    auto cases = ReadJsonFile(folder.path() + "/cases.json");
    ASSERT_TRUE(cases.ok()) << cases.status();
    cases_ = std::make_unique<json>(*std::move(cases));
  }
  static void TearDownTestSuite() { cases_.reset(); }

  static std::unique_ptr<json> cases_;
};

std::unique_ptr<json> DdimTest::cases_;

at::Tensor TensorOf(const json& bits, const std::string& dtype, at::IntArrayRef shape) {
  if (dtype == "float32") {
    std::vector<float> values;
    for (const json& b : bits) values.push_back(std::bit_cast<float>(b.get<uint32_t>()));
    return at::from_blob(values.data(), shape, at::kFloat).clone();
  }
  std::vector<uint16_t> values;
  for (const json& b : bits) values.push_back(b.get<uint16_t>());
  return at::from_blob(values.data(), shape, at::kBFloat16).clone();
}

TEST_F(DdimTest, SchedulesAreDiffusers) {
  for (const json& c : (*cases_)["schedules"]) {
    SCOPED_TRACE(c["config"].dump() + " steps " + c["steps"].dump());
    const auto config = DdimConfig::FromJson(c["config"], "config");
    ASSERT_TRUE(config.ok()) << config.status();
    const auto schedule = MakeDdimSchedule(*config, c["steps"]);
    ASSERT_TRUE(schedule.ok()) << schedule.status();
    ASSERT_EQ(schedule->size(), c["timesteps"].size());
    for (size_t i = 0; i < schedule->size(); ++i) {
      const DdimStepLevels& levels = (*schedule)[i];
      ASSERT_EQ(levels.timestep, c["timesteps"][i].get<int>()) << i;
      ASSERT_NEAR(levels.alpha, c["alphas"][i].get<double>(), kTableTolerance) << i;
      ASSERT_NEAR(levels.next_alpha, c["next_alphas"][i].get<double>(), kTableTolerance) << i;
    }
  }
}

TEST_F(DdimTest, LoopsOfStepsAreDiffusersBitForBit) {
  for (const json& loop : (*cases_)["loops"]) {
    const std::string dtype = loop["dtype"];
    SCOPED_TRACE(loop["class"].dump() + " " + loop["config"].dump() + " " + dtype + " from " +
                 loop["first"].dump());
    json config_json = loop["config"];
    config_json["_class_name"] = loop["class"];
    const auto config = DdimConfig::FromJson(config_json, "config");
    ASSERT_TRUE(config.ok()) << config.status();
    const auto schedule = MakeDdimSchedule(*config, 6);
    ASSERT_TRUE(schedule.ok()) << schedule.status();
    at::Generator generator =
        at::make_generator<at::CPUGeneratorImpl>(loop["seed"].get<uint64_t>());
    at::Tensor sample = TensorOf(loop["sample"], dtype, {2, 3, 8}), before;
    for (size_t i = loop["first"]; i < schedule->size(); ++i) {
      const size_t recorded = i - loop["first"].get<size_t>();
      const at::Tensor output = TensorOf(loop["outputs"][recorded], "float32", {2, 3, 8});
      at::Tensor next;
      if (config->solver == DdimSolver::kDdim) {
        next = DdimStep(sample, output, (*schedule)[i]);
      } else {
        next = DpmSolverStep(sample, output, before, *schedule, static_cast<int>(i), [&] {
          return at::randn(sample.sizes(), generator, sample.options());
        });
      }
      EXPECT_EQ(next.scalar_type(), at::kFloat);
      sample = next.to(sample.scalar_type());
      const at::Tensor want = TensorOf(loop["results"][recorded], dtype, {2, 3, 8});
      ASSERT_TRUE(sample.equal(want)) << "step " << i;
    }
  }
}

TEST_F(DdimTest, NoiseIsAddedAsDiffusersDoesBitForBit) {
  for (const json& c : (*cases_)["noised"]) {
    SCOPED_TRACE(c["dtype"].dump() + " " + c["alpha"].dump());
    const at::Tensor got = AddNoise(TensorOf(c["original"], c["dtype"], {24}),
                                    TensorOf(c["noise"], c["dtype"], {24}), c["alpha"]);
    EXPECT_TRUE(got.equal(TensorOf(c["result"], c["dtype"], {24})));
  }
}

TEST(DdimConfigTest, WhatCannotBeDoneIsRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"_class_name": "DDIMScheduler"})", "_class_name is 'DDIMScheduler'"},
      {R"({"beta_schedule": "linear"})", "beta_schedule is 'linear'"},
      {R"({"trained_betas": [0.1]})", "trained_betas"},
      {R"({"prediction_type": "epsilon"})", "prediction_type is 'epsilon'"},
      {R"({})", "prediction_type is 'epsilon'"},
      {R"({"timestep_spacing": "cubic"})", "timestep_spacing is 'cubic'"},
      {R"({"num_train_timesteps": 1})", "num_train_timesteps is 1"},
      {R"({"beta_start": 0.5, "beta_end": 0.4})", "beta_start is 0.5"},
      {R"({"snr_shift_scale": 0})", "snr_shift_scale is 0"},
      {R"({"steps_offset": 1000})", "steps_offset is 1000"},
      {R"({"steps_offset": "one"})", "'steps_offset'"},
  };
  for (const auto& [text, says] : cases) {
    json config = json::parse(text);
    if (std::string(text) != "{}" && !config.contains("prediction_type"))
      config["prediction_type"] = "v_prediction";
    const auto status = DdimConfig::FromJson(config, "the file").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(says));
    EXPECT_THAT(std::string(status.message()), HasSubstr("the file"));
  }
}

TEST(FirstStepTest, StrengthSaysWhichStepIsTheFirst) {
  EXPECT_EQ(FirstStepAt(50, 1.0), 0);
  EXPECT_EQ(FirstStepAt(50, 0.8), 10);
  EXPECT_EQ(FirstStepAt(4, 0.8), 1);  // 3.2 steps are 3
  EXPECT_EQ(FirstStepAt(4, 0.2), 4);
  EXPECT_EQ(FirstStepAt(4, 0.0), 4);
}

TEST(DdimScheduleTest, StepsBeforeTheFirstAreLeftOut) {
  const auto all = MakeDdimSchedule({}, 10), some = MakeDdimSchedule({}, 10, 0.35);
  ASSERT_TRUE(all.ok() && some.ok());
  ASSERT_EQ(some->size(), 3);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ((*some)[i].timestep, (*all)[i + 7].timestep);
  const auto none = MakeDdimSchedule({}, 10, 0.05);
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("10 steps at strength 0.05"));
}

TEST(DdimScheduleTest, CountsOfNoScheduleAreRefused) {
  for (const int steps : {0, -1, 1001}) {
    EXPECT_EQ(MakeDdimSchedule({}, steps).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace kino::engine
