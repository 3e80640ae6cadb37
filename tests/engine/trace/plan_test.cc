#include "engine/describe/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/describe/weight_plan.h"
#include "engine/engine.h"

namespace kino::engine {
namespace {

using ::testing::Each;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::Lt;

constexpr DeviceSpec kCpu = {};
constexpr DeviceSpec kGpu = {.is_gpu = true};

class PlanTest : public ::testing::Test {
 protected:
  PlanTest() {
    absl::StatusOr<ModelDescription> model =
        DescribeModel(std::string(KINO_SOURCE_DIR) + "/models/demo");
    EXPECT_TRUE(model.ok()) << model.status();
    model_ = *model;
    request_.prompt = "a red star";
    request_.height = 128;
    request_.width = 128;
    request_.num_frames = 17;
  }

  Planner On(const DeviceSpec& device, DType dtype = DType::kBF16, bool allow_lossy = false) const {
    const ResolvedRequest resolved = ResolveRequest(model_, request_, 1);
    EXPECT_TRUE(resolved.violations.empty());
    return Planner(model_, resolved.request, ProfilesOf(model_, dtype, device.is_gpu), device,
                   allow_lossy);
  }
  PlanEstimate Estimate(const Planner& planner, const Plan& plan) const {
    const absl::StatusOr<PlanEstimate> estimate = planner.Estimate(plan);
    EXPECT_TRUE(estimate.ok()) << estimate.status();
    return *estimate;
  }
  std::vector<PlanEstimate> Table(const Planner& planner, const Plan& base = {}) const {
    const absl::StatusOr<std::vector<PlanEstimate>> table = planner.Table(base);
    EXPECT_TRUE(table.ok()) << table.status();
    return *table;
  }
  static Plan Offload(const std::string& policy) {
    Plan plan;
    plan.offload = policy;
    return plan;
  }
  static Plan Mode(const std::string& mode) {
    Plan plan;
    plan.mode = mode;
    return plan;
  }
  static const StageEstimate& Of(const PlanEstimate& estimate, Stage stage) {
    return *std::find_if(estimate.stages.begin(), estimate.stages.end(),
                         [stage](const StageEstimate& each) { return each.stage == stage; });
  }

  ModelDescription model_;
  Request request_;
};

TEST_F(PlanTest, ResidentWeightsAreThereInEveryStage) {
  const PlanEstimate resident = Estimate(On(kGpu), {});
  EXPECT_EQ(resident.name, "resident");
  EXPECT_DOUBLE_EQ(resident.slowdown, 1.0);
  EXPECT_TRUE(resident.lossless);
  ASSERT_EQ(resident.stages.size(), 3u);
  for (const StageEstimate& stage : resident.stages)
    EXPECT_EQ(stage.weights, model_.WeightBytes(DType::kBF16)) << StageName(stage.stage);
}

TEST_F(PlanTest, KernelsAreThoseOfAllStepsOnAGpu) {
  request_.num_inference_steps = 10;
  const PlanEstimate few = Estimate(On(kGpu), {});
  request_.num_inference_steps = 20;
  const PlanEstimate many = Estimate(On(kGpu), {});
  const double ten = Of(few, Stage::kDenoise).kernels.launches,
               step = (Of(many, Stage::kDenoise).kernels.launches - ten) / 10;
  EXPECT_GT(step, 0);
  EXPECT_NEAR(step, std::round(step), 1e-9);
  // And what is prepared once.
  EXPECT_GT(ten - 10 * step, 0);
  EXPECT_LT(ten - 10 * step, ten / 2);
  const KernelCounts decode = Of(few, Stage::kDecode).kernels;
  EXPECT_NEAR(decode.launches, Of(many, Stage::kDecode).kernels.launches, 1e-6);
  EXPECT_NEAR(decode.launches, std::round(decode.launches), 1e-6);
  Plan chunks;
  chunks.chunk_feed_forward = 4;
  EXPECT_GT(Of(Estimate(On(kGpu), chunks), Stage::kDenoise).kernels.launches,
            Of(many, Stage::kDenoise).kernels.launches);
  for (const StageEstimate& stage : Estimate(On(kCpu), {}).stages)
    EXPECT_EQ(stage.kernels.launches, 0) << StageName(stage.stage);
}

TEST_F(PlanTest, MappedWeightsOfTheSameTypeCostTheCpuNothing) {
  for (const StageEstimate& stage : Estimate(On(kCpu, DType::kBF16), {}).stages)
    EXPECT_EQ(stage.weights, 0) << StageName(stage.stage);
  // In another type they are a copy.
  for (const StageEstimate& stage : Estimate(On(kCpu, DType::kF32), {}).stages)
    EXPECT_EQ(stage.weights, model_.WeightBytes(DType::kF32)) << StageName(stage.stage);
  Plan pageable;
  pageable.weights_home = "pageable";
  for (const StageEstimate& stage : Estimate(On(kCpu, DType::kBF16), pageable).stages)
    EXPECT_EQ(stage.weights, model_.WeightBytes(DType::kBF16)) << StageName(stage.stage);
}

TEST_F(PlanTest, SmallerUnitsHoldLess) {
  const Planner planner = On(kGpu);
  int64_t last = Of(Estimate(planner, Offload("none")), Stage::kDenoise).weights;
  for (const char* policy : {"model", "block:2", "block:1", "leaf", "sequential"}) {
    const int64_t weights = Of(Estimate(planner, Offload(policy)), Stage::kDenoise).weights;
    EXPECT_LT(weights, last) << policy;
    last = weights;
  }
  // time_embed.linear and one of the feed-forward's, each with its bias.
  EXPECT_EQ(Of(Estimate(planner, Offload("leaf")), Stage::kDenoise).weights,
            (1536 * 256 + 1536 + 1024 * 256 + 1024) * 2);
}

TEST_F(PlanTest, HomesThatAreMemoryCountOnTheHost) {
  Plan plan = Offload("block:1");
  plan.weights_home = "pinned";
  const PlanEstimate pinned = Estimate(On(kGpu), plan);
  EXPECT_GE(pinned.peak_host, model_.WeightBytes(DType::kBF16));
  // A file needs none of it, but memory to go through.
  EXPECT_LT(Estimate(On(kGpu), Offload("block:1")).peak_host,
            model_.WeightBytes(DType::kBF16) + (int64_t{128} << 20));
  EXPECT_EQ(On(kCpu).Estimate(plan).status().code(), absl::StatusCode::kFailedPrecondition);
  // Memory that is not page-locked goes through the slabs that one thread fills. They are counted
  // for every plan, since the engine keeps them.
  plan.weights_home = "pageable";
  const PlanEstimate pageable = Estimate(On(kGpu), plan);
  EXPECT_EQ(pageable.peak_host, pinned.peak_host);
  EXPECT_GE(Estimate(On(kGpu), {}).peak_host, int64_t{128} << 20);
  EXPECT_GT(pageable.slowdown, 4 * pinned.slowdown);
}

// Where LLM.int8() takes 1,024 tokens at a time everywhere, layers that are quantized token by
// token take more on a GPU.
TEST_F(PlanTest, ALayerThatTakesMoreTokensAtOnceTakesMoreWorkspace) {
  request_.height = request_.width = 512;
  request_.num_frames = 65;  // 2,304 tokens
  const auto workspace = [&](DeviceSpec device, const char* scheme) {
    Plan plan;
    plan.quantize = absl::StrCat("transformer=", scheme);
    return Of(Estimate(On(device), plan), Stage::kDenoise).workspace;
  };
  for (const char* scheme : {"int8dyn", "fp8dyn"}) {
    EXPECT_GT(workspace(kGpu, scheme), workspace(kGpu, "int8")) << scheme;
    EXPECT_LT(workspace(kCpu, scheme), workspace(kCpu, "int8")) << scheme;
  }
}

TEST_F(PlanTest, QuantizedWeightsTakeTheirStoredBytes) {
  Plan plan;
  plan.quantize = "transformer=nf4";
  const PlanEstimate quantized = Estimate(On(kGpu), plan);
  EXPECT_FALSE(quantized.lossless);
  const auto transformer = std::find_if(
      model_.components.begin(), model_.components.end(),
      [](const ComponentDescription& component) { return component.name == "transformer"; });
  int64_t saved = 0;
  for (const WeightTensor& weight : transformer->weights) {
    if (weight.shape.size() != 2 || !weight.name.ends_with(".weight")) continue;
    saved += weight.elements * 2 -
             QuantizedBytes(QuantScheme::kNf4, weight.shape[0], weight.shape[1], DType::kBF16);
  }
  EXPECT_EQ(Of(quantized, Stage::kDecode).weights, model_.WeightBytes(DType::kBF16) - saved);
  // One matrix at a time is decoded.
  EXPECT_EQ(Of(quantized, Stage::kDenoise).workspace - Of(quantized, Stage::kEncodeText).workspace,
            256 * 1024 * 2);
}

TEST_F(PlanTest, DecodingTwiceTheFramesTakesTheSameMemory) {
  const auto decoder = [this](int frames) {
    request_.num_frames = frames;
    // Latents, in float32 and as they are decoded, are as long as the video.
    const int64_t latents = ((frames - 1) / 4 + 1) * 8 * 8 * 64 * (4 + 2);
    return static_cast<double>(Of(Estimate(On(kCpu), {}), Stage::kDecode).activations - latents);
  };
  EXPECT_LE(decoder(257), 1.05 * decoder(129));
}

TEST_F(PlanTest, TheTableGoesFromFastToSlowAndExactPlansComeFirst) {
  request_.height = request_.width = 768;
  Plan nf4;
  nf4.quantize = "nf4";
  for (const Plan& base : {Plan(), nf4}) {
    const std::vector<PlanEstimate> table = Table(On(kGpu), base);
    ASSERT_GE(table.size(), 6u);
    EXPECT_EQ(table[0].name, base.quantize ? "resident + nf4" : "resident");
    EXPECT_THAT(table, Each(Field(&PlanEstimate::lossless, !base.quantize)));
    for (size_t i = 1; i < table.size(); ++i) {
      const bool was_tiled = table[i - 1].plan.vae_tiling.has_value(),
                 is_tiled = table[i].plan.vae_tiling.has_value();
      EXPECT_LE(was_tiled, is_tiled) << table[i].name;
      if (was_tiled == is_tiled) {
        EXPECT_LE(table[i - 1].slowdown, table[i].slowdown) << table[i].name;
      }
    }
  }
}

TEST_F(PlanTest, WhatIsSetStaysAndLossyPlansMustBeAllowed) {
  Plan base = Offload("leaf");
  base.chunk_feed_forward = 128;
  for (const PlanEstimate& each : Table(On(kGpu), base)) {
    EXPECT_EQ(each.plan.offload, "leaf");
    EXPECT_EQ(each.plan.chunk_feed_forward, 128);
    EXPECT_FALSE(each.plan.quantize || each.plan.storage_dtype);
  }
  const std::vector<PlanEstimate> lossy = Table(On(kGpu, DType::kBF16, /*allow_lossy=*/true), base);
  EXPECT_TRUE(std::any_of(lossy.begin(), lossy.end(),
                          [](const PlanEstimate& each) { return each.plan.quantize == "nf4"; }));
  EXPECT_TRUE(lossy.front().lossless);
}

TEST_F(PlanTest, AutoTakesTheFirstThatFits) {
  const std::vector<PlanEstimate> table = Table(On(kGpu));
  const PlanEstimate least = *std::min_element(
      table.begin(), table.end(),
      [](const PlanEstimate& a, const PlanEstimate& b) { return a.peak_device < b.peak_device; });
  for (const int64_t limit : {table[0].peak_device, table[0].peak_device - 1, least.peak_device}) {
    DeviceSpec device = kGpu;
    device.device_bytes = limit;
    const absl::StatusOr<PlanEstimate> chosen = On(device).Choose(Mode("auto"));
    EXPECT_TRUE(chosen.ok()) << chosen.status();
    if (!chosen.ok()) continue;
    EXPECT_LE(chosen->peak_device, limit);
    for (const PlanEstimate& each : table) {
      if (each.name == chosen->name) break;
      EXPECT_GT(each.peak_device, limit) << each.name << " comes before " << chosen->name;
    }
  }
  DeviceSpec device = kGpu;
  device.device_bytes = least.peak_device - 1;
  EXPECT_EQ(On(device).Choose(Mode("auto")).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(On(kGpu).Choose(Mode("smallest"))->peak_device, least.peak_device);
}

TEST_F(PlanTest, APlanThatDoesNotFitSaysNeedHaveAndWhatWould) {
  const PlanEstimate resident = Estimate(On(kGpu), {});
  DeviceSpec device = kGpu;
  device.device_bytes = resident.peak_device - 1;
  for (const Plan& plan : {Offload("none"), Mode("fastest")}) {
    const absl::Status status = On(device).Choose(plan).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(status.message()), HasSubstr("of device memory in stage decode"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("fits with "));
  }
  Plan limited;
  limited.max_device_memory = resident.peak_device - 1;
  EXPECT_FALSE(On(kGpu).Choose(limited).ok());
  limited.max_device_memory = resident.peak_device;
  EXPECT_TRUE(On(kGpu).Choose(limited).ok());
}

TEST_F(PlanTest, TheMostFramesThatFitAreNamed) {
  const auto least = [this] {
    int64_t bytes = std::numeric_limits<int64_t>::max();
    for (const PlanEstimate& each : Table(On(kCpu))) bytes = std::min(bytes, each.peak_device);
    return bytes;
  };
  request_.height = request_.width = 256;
  request_.num_frames = 129;
  DeviceSpec device;
  device.host_bytes = least();
  request_.num_frames = 133;
  EXPECT_GT(least(), device.host_bytes);
  request_.num_frames = 257;
  EXPECT_THAT(On(device).WhatWouldFit({}), HasSubstr("fits up to 129 frames with "));
  request_.num_frames = 260;  // 257 come out
  EXPECT_THAT(On(device).WhatWouldFit({}), HasSubstr("fits up to 129 frames with "));
  device.host_bytes = 1000;
  EXPECT_THAT(On(device).WhatWouldFit({}), HasSubstr("the least it needs is "));
}

TEST_F(PlanTest, LowerPlansNeedLessUntilThereIsNone) {
  request_.height = request_.width = 768;
  const Planner planner = On(kGpu);
  PlanEstimate current = Estimate(planner, {});
  // On the device in the stage that failed; where that stays, on the host.
  const auto need = [](const PlanEstimate& estimate) {
    for (const StageEstimate& stage : estimate.stages) {
      if (stage.stage == Stage::kDenoise) return std::pair(stage.device(), estimate.peak_host);
    }
    return std::pair(estimate.peak_device, estimate.peak_host);
  };
  int steps = 0;
  for (;;) {
    const absl::StatusOr<PlanEstimate> lower =
        planner.NextLower(current.plan, Mode("auto"), Stage::kDenoise);
    if (!lower.ok()) {
      EXPECT_EQ(lower.status().code(), absl::StatusCode::kNotFound);
      break;
    }
    ASSERT_LT(need(*lower), need(current));
    EXPECT_TRUE(lower->lossless);
    current = *lower;
    ASSERT_LT(++steps, 50);
  }
  EXPECT_GE(steps, 2);
  EXPECT_EQ(planner.NextLower(Offload("none"), Offload("none"), Stage::kDecode).status().code(),
            planner.Table(Offload("none"))->size() > 1 ? absl::StatusCode::kOk
                                                       : absl::StatusCode::kNotFound);
}

TEST_F(PlanTest, LimitsAreTheLeastOfBoth) {
  Plan plan;
  plan.max_device_memory = 5;
  const DeviceSpec limited = LimitedBy({.is_gpu = true, .device_bytes = 7, .host_bytes = 9}, plan);
  EXPECT_EQ(limited.device_bytes, 5);
  EXPECT_EQ(limited.host_bytes, 9);
  EXPECT_EQ(LimitedBy({}, plan).device_bytes, 5);
}

// Made-up phases; of one weight where nothing else is said.
class MadeUpProfile final : public ProfileSource {
 public:
  explicit MadeUpProfile(std::vector<PhaseNeed> phases,
                         std::vector<ComponentPlaces> places =
                             {{.component = "net",
                               .weights = {{.name = "weight", .part = "", .group = ""}}}})
      : phases_(std::move(phases)),
        places_(std::make_shared<const std::vector<ComponentPlaces>>(std::move(places))) {}
  absl::StatusOr<RunProfile> Profile(const Request&,
                                     const std::vector<PhaseVariant>& variants) override {
    RunProfile profile;
    profile.places = places_;
    for (const PhaseVariant& variant : variants) profile.variants.emplace_back(variant, phases_);
    return profile;
  }

 private:
  std::vector<PhaseNeed> phases_;
  std::shared_ptr<const std::vector<ComponentPlaces>> places_;
};

ComponentDescription NetOf(const std::string& name, const std::vector<std::string>& weights) {
  ComponentDescription net = {.name = name, .library = "diffusers", .class_name = "Net"};
  for (const std::string& weight : weights) {
    net.weights.push_back(
        {.name = weight, .shape = {10}, .dtype = DType::kF32, .bytes = 40, .elements = 10});
  }
  return net;
}

PlanEstimate EstimateOf(const std::vector<PhaseNeed>& phases, const DeviceSpec& device,
                        const Plan& plan = {}) {
  ModelDescription model;
  model.components.push_back(NetOf("net", {"weight"}));
  const absl::StatusOr<PlanEstimate> estimate =
      Planner(model, Request(), std::make_shared<MadeUpProfile>(phases), device).Estimate(plan);
  EXPECT_TRUE(estimate.ok()) << estimate.status();
  return *estimate;
}

PhaseNeed Phase(Stage stage, int64_t device, int64_t host) {
  return {.stage = stage,
          .component = "net",
          .part = "",
          .device_activations = device,
          .host_activations = host};
}

// What a stage needs is the most of its phases, in whatever order they come and whatever comes
// between them: on the device of one phase, on the host maybe of another.
TEST(PlanOfPhasesTest, TheLargestPhaseOfAStageCounts) {
  // The first is the largest on the device, the second on the host; the third is neither.
  const std::vector<PhaseNeed> phases = {Phase(Stage::kDenoise, 3000, 20),
                                         Phase(Stage::kDenoise, 1000, 70),
                                         Phase(Stage::kDenoise, 2000, 50)};
  const std::vector<PhaseNeed> others = {Phase(Stage::kEncodeText, 500, 10),
                                         Phase(Stage::kDecode, 2500, 60)};
  // Beside the activations, weights and what libraries keep: the same for all.
  const int64_t host = EstimateOf({Phase(Stage::kDenoise, 0, 0)}, kGpu).peak_host;
  const int64_t device = EstimateOf({Phase(Stage::kDenoise, 0, 0)}, kGpu).peak_device;
  std::vector<int> order = {0, 1, 2};
  do {
    const std::string in_order = absl::StrCat(order[0], order[1], order[2]);
    const PlanEstimate estimate = EstimateOf(
        {phases[order[0]], others[0], phases[order[1]], others[1], phases[order[2]]}, kGpu);
    ASSERT_EQ(estimate.stages.size(), 3u) << in_order;
    for (const StageEstimate& stage : estimate.stages) {
      const bool is_text = stage.stage == Stage::kEncodeText,
                 is_decode = stage.stage == Stage::kDecode;
      EXPECT_EQ(stage.activations, is_text ? 500 : is_decode ? 2500 : 3000) << in_order;
      EXPECT_EQ(stage.device() - device, stage.activations) << in_order;
      EXPECT_EQ(stage.host - host, is_text ? 10 : is_decode ? 60 : 70) << in_order;
    }
    EXPECT_EQ(estimate.peak_device - device, 3000) << in_order;
    EXPECT_EQ(estimate.peak_host - host, 70) << in_order;
    EXPECT_EQ(estimate.peak_stage().stage, Stage::kDenoise) << in_order;
    // On the CPU the host is the device.
    const PlanEstimate on_cpu =
        EstimateOf({phases[order[0]], phases[order[1]], phases[order[2]]}, kCpu);
    ASSERT_EQ(on_cpu.stages.size(), 1u) << in_order;
    EXPECT_EQ(on_cpu.stages[0].activations, 3000) << in_order;
    EXPECT_EQ(on_cpu.stages[0].host, on_cpu.stages[0].device()) << in_order;
    EXPECT_EQ(on_cpu.peak_host, on_cpu.peak_device) << in_order;
  } while (std::next_permutation(order.begin(), order.end()));
}

// What is over before the stage's weights come does not lie beside them, unless they never leave.
TEST(PlanOfPhasesTest, APhaseBeforeTheStagesWeightsHasNone) {
  PhaseNeed before = Phase(Stage::kEncodeMedia, 3000, 0);
  before.component = "";
  Plan model, pageable;
  model.offload = "model";
  pageable.weights_home = "pageable";
  for (const int64_t activations : {2950, 2970}) {
    const std::vector<PhaseNeed> phases = {before, Phase(Stage::kEncodeMedia, activations, 0)};
    // The one weight has 40 bytes.
    EXPECT_EQ(EstimateOf(phases, kCpu, model).peak_device,
              std::max<int64_t>(3000, activations + 40));
    EXPECT_EQ(EstimateOf(phases, kCpu, pageable).peak_device, 3000 + 40);
  }
}

// Each component that a stage comes to stays in its slots until the stage is over.
TEST(PlanOfPhasesTest, AStageHoldsTheSlotsOfTheComponentsItHasComeTo) {
  ModelDescription model;
  std::vector<ComponentPlaces> places;
  for (const char* name : {"net", "other"}) {
    model.components.push_back(NetOf(name, {"weight"}));
    places.push_back({.component = name, .weights = {{.name = "weight", .part = "", .group = ""}}});
  }
  const auto of_other = [](Stage stage, int64_t activations) {
    PhaseNeed phase = Phase(stage, activations, 0);
    phase.component = "other";
    return phase;
  };
  Plan offload;
  offload.offload = "model";
  const auto estimate =
      Planner(model, Request(),
              std::make_shared<MadeUpProfile>(
                  std::vector<PhaseNeed>{
                      Phase(Stage::kEncodeText, 900, 0), of_other(Stage::kEncodeText, 1000),
                      of_other(Stage::kDenoise, 1000), Phase(Stage::kDecode, 1000, 0)},
                  places),
              kCpu)
          .Estimate(offload);
  ASSERT_TRUE(estimate.ok()) << estimate.status();
  ASSERT_EQ(estimate->stages.size(), 3u);
  // Each has 40 bytes.
  EXPECT_EQ(estimate->stages[0].device(), 1000 + 80);
  EXPECT_EQ(estimate->stages[1].device(), 1000 + 40);
  EXPECT_EQ(estimate->stages[2].device(), 1000 + 40);
}

// The order of the run, whatever comes more than once.
TEST(PlanOfPhasesTest, StagesAreListedOnceAndAsTheyCome) {
  std::vector<PhaseNeed> phases;
  for (const Stage stage : {Stage::kEncodeText, Stage::kEncodeMedia, Stage::kDenoise,
                            Stage::kUpscale, Stage::kEncodeMedia, Stage::kDenoise, Stage::kDecode})
    phases.push_back(Phase(stage, 1000, 0));
  std::vector<Stage> stages;
  for (const StageEstimate& each : EstimateOf(phases, kCpu).stages) stages.push_back(each.stage);
  EXPECT_EQ(stages, (std::vector<Stage>{Stage::kEncodeText, Stage::kEncodeMedia, Stage::kDenoise,
                                        Stage::kUpscale, Stage::kDecode}));
}

TEST(PlanOfPhasesTest, ConvolutionsTakeAWorkspaceOfTheirOwnOnAGpu) {
  PhaseNeed convolves = Phase(Stage::kDecode, 0, 0);
  convolves.convolution_flops = 1;
  const auto workspace = [](const PhaseNeed& phase, const DeviceSpec& device) {
    return EstimateOf({phase}, device).stages[0].workspace;
  };
  EXPECT_GT(workspace(convolves, kGpu), workspace(Phase(Stage::kDecode, 0, 0), kGpu));
  EXPECT_EQ(workspace(convolves, kCpu), workspace(Phase(Stage::kDecode, 0, 0), kCpu));
}

// What a table leaves open is offload and home.
Plan RestGiven() {
  Plan plan;
  plan.vae_tiling.emplace();
  plan.chunk_feed_forward = 1024;
  return plan;
}

TEST(PlanOfPhasesTest, AGroupOfAllBlocksIsNoPlan) {
  ModelDescription model;
  model.components.push_back(NetOf("net", {"0.weight", "1.weight", "2.weight", "3.weight"}));
  ComponentPlaces places = {.component = "net", .weights = {}};
  for (int i = 0; i < 4; ++i) {
    places.weights.push_back({.name = absl::StrCat(i, ".weight"),
                              .part = "",
                              .group = absl::StrCat(i),
                              .stack = 0,
                              .block = i});
  }
  const auto profile = std::make_shared<MadeUpProfile>(
      std::vector<PhaseNeed>{Phase(Stage::kDenoise, 1, 1)}, std::vector<ComponentPlaces>{places});
  const auto table = Planner(model, Request(), profile, kCpu).Table(RestGiven());
  ASSERT_TRUE(table.ok()) << table.status();
  std::vector<std::string> policies;
  for (const PlanEstimate& each : *table) policies.push_back(*each.plan.offload);
  EXPECT_THAT(policies,
              ::testing::UnorderedElementsAre("none", "model", "block:1", "block:2", "leaf"));
}

// A prediction is not exact: a plan that needs hardly less is none that a run is tried with again.
TEST(PlanOfPhasesTest, ALowerPlanNeedsLessByMoreThanThePredictionsError) {
  ModelDescription model;
  model.components.push_back(NetOf("net", {"weight"}));
  Plan in_memory = RestGiven(), in_file = RestGiven();
  in_memory.offload = "none";
  in_memory.weights_home = "pageable";
  in_file.weights_home = "file";
  // Used where the file is mapped, 40 bytes are saved.
  for (const auto& [activations, is_found] : {std::pair{4000, false}, std::pair{400, true}}) {
    const auto profile = std::make_shared<MadeUpProfile>(
        std::vector<PhaseNeed>{Phase(Stage::kDenoise, activations, 0)});
    const absl::Status status = Planner(model, Request(), profile, kCpu)
                                    .NextLower(in_memory, in_file, Stage::kDenoise)
                                    .status();
    EXPECT_EQ(status.code(), is_found ? absl::StatusCode::kOk : absl::StatusCode::kNotFound)
        << status;
  }
}

TEST_F(PlanTest, WhatIsTooSmallIsToldFromWhatIsNot) {
  const PlanEstimate resident = Estimate(On(kGpu), {});
  const auto says = [&](int64_t device_bytes, int64_t host_bytes) {
    const DeviceSpec device = {
        .is_gpu = true, .device_bytes = device_bytes, .host_bytes = host_bytes};
    return std::string(On(device).Choose(Offload("none")).status().message());
  };
  EXPECT_THAT(says(resident.peak_device, resident.peak_host), "");
  EXPECT_THAT(says(resident.peak_device, resident.peak_host - 1), HasSubstr(" of host memory in "));
  EXPECT_THAT(says(0, resident.peak_host - 1), HasSubstr(" of host memory in "));
  EXPECT_THAT(says(resident.peak_device - 1, resident.peak_host),
              HasSubstr(" of device memory in "));
}

TEST_F(PlanTest, WithoutATokenizerPromptsCountAsTheLongestThereAre) {
  namespace fs = std::filesystem;
  const fs::path demo = std::string(KINO_SOURCE_DIR) + "/models/demo";
  const fs::path bare = testing::TempDir() + "/without-tokenizer";
  fs::remove_all(bare);
  fs::create_directories(bare);
  for (const fs::directory_entry& each : fs::directory_iterator(demo)) {
    if (each.path().filename() != "tokenizer")
      fs::create_symlink(each.path(), bare / each.path().filename());
  }
  // Two prompts that are too long, and not the same.
  for (int i = 0; i < 1000; ++i) {
    absl::StrAppend(&*request_.prompt, " red");
    request_.negative_prompt = request_.negative_prompt.value_or("") + " blue";
  }
  const PlanEstimate want = Estimate(On(kCpu), {});
  const absl::StatusOr<ModelDescription> model = DescribeModel(bare);
  ASSERT_TRUE(model.ok()) << model.status();
  model_ = *model;
  const PlanEstimate got = Estimate(On(kCpu), {});
  ASSERT_EQ(got.stages.size(), want.stages.size());
  for (size_t i = 0; i < want.stages.size(); ++i) {
    EXPECT_EQ(got.stages[i].device(), want.stages[i].device()) << i;
    EXPECT_EQ(got.stages[i].flops, want.stages[i].flops) << i;
  }
  request_.prompt = "short";
  request_.negative_prompt = "";
  EXPECT_EQ(Estimate(On(kCpu), {}).stages[0].flops, want.stages[0].flops);
  // To run is another matter.
  const auto engine = Engine::Create({.device = "cpu"});
  ASSERT_TRUE(engine.ok()) << engine.status();
  EXPECT_THAT(std::string((*engine)->Load({.folder = bare}, nullptr).status().message()),
              HasSubstr("holds neither tokenizer.json nor spiece.model"));
}

TEST_F(PlanTest, CopiesThatTheGpuDoesNotHideCostTime) {
  const Planner planner = On(kGpu);
  Plan plan = Offload("sequential");
  plan.weights_home = "pinned";
  const PlanEstimate sequential = Estimate(planner, plan);
  EXPECT_DOUBLE_EQ(sequential.transfer_hidden, 0);
  plan.offload = "leaf";
  const PlanEstimate leaf = Estimate(planner, plan);
  EXPECT_GT(leaf.transfer_hidden, 0);
  EXPECT_LT(leaf.slowdown, sequential.slowdown);
  EXPECT_GT(leaf.slowdown, 1);
}

}  // namespace
}  // namespace kino::engine
