#include "engine/describe/describe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <utility>

#include "engine/describe/weight_plan.h"
#include "tests/support/bare_model.h"
#include "tests/support/resolving_test.h"
#include "tests/support/temp_dir.h"

namespace kino::engine {
namespace {

using ::kino::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

class DescribeTest : public testing::ResolvingTest {
 protected:
  DescribeTest() {
    absl::StatusOr<ModelDescription> model =
        DescribeModel(std::string(KINO_SOURCE_DIR) + "/models/demo");
    EXPECT_TRUE(model.ok()) << model.status();
    model_ = *model;
    request_.prompt = "a red star";
    request_.height = 64;
    request_.width = 64;
    request_.num_frames = 17;
  }
};

TEST_F(DescribeTest, KnowsTheDemoModel) {
  EXPECT_EQ(model_.family, "ltx");
  EXPECT_EQ(model_.pipeline_class, "LTXPipeline");
  ASSERT_EQ(model_.details->tasks().size(), 3u);
  EXPECT_EQ(model_.details->limits().size_multiple, 32);
  EXPECT_EQ(model_.details->limits().frames_multiple, 4);
  int64_t elements = 0;
  for (const ComponentDescription& component : model_.components)
    elements += component.weight_elements;
  EXPECT_EQ(model_.WeightBytes(DType::kBF16), 2 * elements);
  EXPECT_GT(elements, 11'000'000);
  int64_t of_vae = 0;
  for (const ComponentDescription& component : model_.components)
    of_vae += component.name == "vae" ? component.weight_elements : 0;
  EXPECT_EQ(model_.WeightBytes(*ComputeDTypes::Parse("bfloat16,vae=float32")),
            2 * elements + 2 * of_vae);
}

TEST_F(DescribeTest, FillsTheDefaultsOfDiffusers) {
  const ResolvedRequest resolved = ResolveRequest(model_, request_, 77);
  ASSERT_THAT(resolved.violations, ElementsAre());
  EXPECT_EQ(resolved.request.task, Task::kTextToVideo);
  EXPECT_EQ(resolved.request.num_inference_steps, 50);
  EXPECT_EQ(resolved.request.guidance_scale, 3.0);
  EXPECT_EQ(resolved.request.negative_prompt, "");
  EXPECT_EQ(resolved.request.seed, 77u);
  EXPECT_EQ(resolved.request.knobs.family, "ltx");
  EXPECT_EQ(resolved.request.knobs.values.at("frame_rate"), KnobValue(25.0));
  EXPECT_EQ(resolved.request.knobs.values.at("max_sequence_length"), KnobValue(int64_t{128}));
  // An effective request resolves to itself.
  EXPECT_THAT(ResolveRequest(model_, resolved.request, 1).violations, ElementsAre());
  EXPECT_EQ(ResolveRequest(model_, resolved.request, 1).request.seed, 77u);
}

TEST_F(DescribeTest, DecodeNoiseFollowsTheDecodeTimestep) {
  request_.knobs.values["decode_timestep"] = 0.05;
  EXPECT_EQ(ResolveRequest(model_, request_, 1).request.knobs.values.at("decode_noise_scale"),
            KnobValue(0.05));
}

TEST_F(DescribeTest, AScheduleOfTheOperatorsYieldsToTheRequests) {
  const std::vector<double> list = {1000, 800, 400.5};
  model_.overrides.num_inference_steps = 3;
  model_.overrides.knobs = {.family = "ltx", .values = {{"timesteps", list}}};
  const Request effective = ResolveRequest(model_, request_, 1).request;
  EXPECT_EQ(effective.knobs.values.at("timesteps"), KnobValue(list));
  EXPECT_EQ(effective.num_inference_steps, 3);
  EXPECT_EQ(ResolveRequest(model_, effective, 1).request, effective);
  Request own = request_;
  own.num_inference_steps = 5;
  EXPECT_EQ(ResolveRequest(model_, own, 1).request.knobs.values.count("timesteps"), 0u);
  EXPECT_EQ(ResolveRequest(model_, own, 1).request.num_inference_steps, 5);
  own = request_;
  own.knobs.values["sigmas"] = std::vector<double>{1, 0.5};
  const ResolvedRequest by_sigmas = ResolveRequest(model_, own, 1);
  EXPECT_THAT(by_sigmas.violations, ElementsAre());
  EXPECT_EQ(by_sigmas.request.knobs.values.count("timesteps"), 0u);
  EXPECT_EQ(by_sigmas.request.num_inference_steps, 2);
}

TEST_F(DescribeTest, InfersTheTaskFromConditions) {
  request_.conditions = {Condition{}};
  EXPECT_EQ(ResolveRequest(model_, request_, 1).request.task, Task::kImageToVideo);
  request_.conditions.push_back({.kind = ConditionKind::kVideo});
  EXPECT_EQ(ResolveRequest(model_, request_, 1).request.task, Task::kVideoToVideo);
  // In whatever order they come.
  std::swap(request_.conditions[0], request_.conditions[1]);
  EXPECT_EQ(ResolveRequest(model_, request_, 1).request.task, Task::kVideoToVideo);
  request_.task = Task::kUpscale;
  EXPECT_THAT(ViolatedFields(), ElementsAre("task"));
}

TEST_F(DescribeTest, NamesEveryFieldThatIsWrong) {
  request_.prompt.reset();
  request_.height = 63;
  request_.width = 0;
  request_.num_frames = 0;
  request_.num_inference_steps = 0;
  request_.guidance_scale = std::nan("");
  request_.fps = -1;
  request_.knobs.values["frame_rate"] = std::numeric_limits<double>::infinity();
  request_.knobs.values["image_cond_noise_scale"] = 0.1;
  request_.knobs.values["max_sequence_length"] = 1.5;
  request_.knobs.values["sigmas"] = std::vector<double>{0.5, -1};
  request_.knobs.values["nobody_knows"] = 1.0;
  EXPECT_THAT(
      ViolatedFields(),
      UnorderedElementsAre("prompt", "height", "width", "num_frames", "num_inference_steps",
                           "guidance_scale", "fps", "ltx.frame_rate", "ltx.image_cond_noise_scale",
                           "ltx.max_sequence_length", "ltx.sigmas", "ltx.nobody_knows"));
}

TEST_F(DescribeTest, PromptsMayHaveEightKibibytes) {
  request_.prompt = request_.negative_prompt = std::string(8192, 'x');
  EXPECT_THAT(ViolatedFields(), ElementsAre());
  *request_.prompt += 'x';
  EXPECT_THAT(ViolatedFields(), ElementsAre("prompt"));
  *request_.negative_prompt += 'x';
  EXPECT_THAT(ViolatedFields(), ElementsAre("prompt", "negative_prompt"));
}

TEST_F(DescribeTest, HugeSizesAreRefusedWithoutOverflow) {
  request_.height = 2147483616;
  request_.width = 2147483616;
  request_.num_frames = 2147483645;
  EXPECT_THAT(ViolatedFields(), ::testing::Contains("height"));
  request_.height = 4096;
  request_.width = 4096;
  request_.num_frames = 8193;
  EXPECT_THAT(ViolatedFields(), ElementsAre("num_frames"));
}

TEST_F(DescribeTest, AScheduleThatComesOutOfNoUseIsRefused) {
  // The demo model's shift is made for small clips; diffusers' default size drives it to NaN.
  request_.height.reset();
  request_.width.reset();
  request_.num_frames.reset();
  EXPECT_THAT(ViolatedFields(), ElementsAre("num_inference_steps"));
}

TEST_F(DescribeTest, OneStepIsTooFewForATerminalSigma) {
  request_.num_inference_steps = 1;
  const std::vector<FieldViolation> violations =
      ResolveRequest(model_, request_, /*draw_seed=*/1).violations;
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_EQ(violations[0].field, "num_inference_steps");
  EXPECT_THAT(violations[0].description, HasSubstr("at least 2 steps"));
}

TEST_F(DescribeTest, CustomSchedulesFallAndExcludeEachOther) {
  std::map<std::string, KnobValue>& knobs = request_.knobs.values;
  knobs["timesteps"] = std::vector<double>{1000, 500, 100};
  EXPECT_EQ(ResolveRequest(model_, request_, 1).request.num_inference_steps, 3);
  knobs["sigmas"] = std::vector<double>{1.0, 0.5};
  EXPECT_THAT(ViolatedFields(), ElementsAre("ltx.sigmas"));
  knobs.erase("timesteps");
  knobs["sigmas"] = std::vector<double>{0.5, 0.5};
  EXPECT_THAT(ViolatedFields(), ElementsAre("ltx.sigmas"));
}

TEST_F(DescribeTest, KnobsOfAnotherFamilyAreRefused) {
  request_.knobs = {.family = "mochi", .values = {{"max_sequence_length", int64_t{64}}}};
  EXPECT_THAT(ViolatedFields(), ElementsAre("mochi"));
  request_.knobs.family = "";
  EXPECT_THAT(ViolatedFields(), ElementsAre());
}

TEST_F(DescribeTest, WholeNumbersAndNumbersStandForEachOther) {
  request_.knobs.values = {{"frame_rate", int64_t{30}}, {"max_sequence_length", 64.0}};
  const ResolvedRequest resolved = ResolveRequest(model_, request_, 1);
  EXPECT_THAT(resolved.violations, ElementsAre());
  EXPECT_EQ(resolved.request.knobs.values.at("frame_rate"), KnobValue(30.0));
  EXPECT_EQ(resolved.request.knobs.values.at("max_sequence_length"), KnobValue(int64_t{64}));
}

// The operator's defaults lie between the request's and the family's.
TEST_F(DescribeTest, TheOperatorsKnobsGoUnderTheRequests) {
  model_.overrides.knobs = {.family = "ltx",
                            .values = {{"frame_rate", 8.0}, {"max_sequence_length", int64_t{64}}}};
  request_.knobs.values = {{"frame_rate", 30.0}};
  const Request resolved = ResolveRequest(model_, request_, 1).request;
  EXPECT_EQ(resolved.knobs.values.at("frame_rate"), KnobValue(30.0));
  EXPECT_EQ(resolved.knobs.values.at("max_sequence_length"), KnobValue(int64_t{64}));
  EXPECT_EQ(model_.Tasks()[0].defaults.knobs.values.at("frame_rate"), KnobValue(8.0));
  // One of another task's is for that task.
  model_.overrides.knobs.values["image_cond_noise_scale"] = 0.5;
  EXPECT_THAT(ViolatedFields(), ElementsAre());
  EXPECT_FALSE(model_.Tasks()[0].defaults.knobs.values.contains("image_cond_noise_scale"));
  EXPECT_TRUE(model_.Tasks()[1].defaults.knobs.values.contains("image_cond_noise_scale"));
  model_.overrides.knobs.family = "mochi";
  EXPECT_THAT(ViolatedFields(), ElementsAre("mochi"));
}

TEST_F(DescribeTest, TilesThatCannotBeAreNamed) {
  request_.plan.vae_tiling = VaeTiling{};
  EXPECT_THAT(ViolatedFields(), ElementsAre());
  request_.plan.vae_tiling->tile_sample_min_height = 64;
  EXPECT_THAT(ViolatedFields(), ElementsAre("plan.vae_tiling.tile_sample_stride_height"));
  request_.plan.vae_tiling->tile_sample_stride_height = 0;
  EXPECT_THAT(ViolatedFields(), ElementsAre("plan.vae_tiling.tile_sample_stride_height"));
}

TEST_F(DescribeTest, AnOffloadNobodyKnowsIsRefused) {
  request_.plan.offload = "block:2";
  EXPECT_THAT(ViolatedFields(), ElementsAre());
  request_.plan.offload = "sometimes";
  EXPECT_THAT(ViolatedFields(), ElementsAre("plan.offload"));
}

TEST_F(DescribeTest, ConditionsFitTheTaskAndTheVideo) {
  request_.task = Task::kImageToVideo;
  EXPECT_THAT(ViolatedFields(), ElementsAre("conditions"));
  request_.conditions = {Condition{}, {.kind = ConditionKind::kVideo}};
  EXPECT_THAT(ViolatedFields(), ElementsAre("conditions[1].kind"));
  request_.conditions = {Condition{.frame_index = 17}, {.strength = 1.5}};
  EXPECT_THAT(ViolatedFields(), ElementsAre("conditions[0].frame_index", "conditions[1].strength"));
  request_.task = Task::kTextToVideo;
  request_.conditions = {Condition{}};
  EXPECT_THAT(ViolatedFields(), ElementsAre("conditions"));
}

// What only LTXConditionPipeline can do runs there, and its knobs show it.
TEST_F(DescribeTest, TheRequestDecidesWhichPipelineRuns) {
  const auto knobs = [this] {
    const ResolvedRequest resolved = ResolveRequest(model_, request_, 1);
    EXPECT_THAT(resolved.violations, ElementsAre());
    const ResolvedRequest again = ResolveRequest(model_, resolved.request, 1);
    EXPECT_EQ(again.request, resolved.request);
    return resolved.request.knobs.values;
  };
  const auto expect_condition_pipeline = [&](bool expected) {
    const std::map<std::string, KnobValue> values = knobs();
    EXPECT_EQ(values.contains("denoise_strength"), expected);
    EXPECT_EQ(values.at("max_sequence_length"), KnobValue(int64_t{expected ? 256 : 128}));
  };
  expect_condition_pipeline(false);
  request_.conditions = {Condition{}};
  expect_condition_pipeline(false);
  EXPECT_FALSE(knobs().contains("image_cond_noise_scale"));
  for (const Condition& condition : {Condition{.frame_index = 8}, Condition{.strength = 0.5},
                                     Condition{.kind = ConditionKind::kVideo},
                                     Condition{.kind = ConditionKind::kControlVideo}}) {
    request_.conditions = {condition};
    expect_condition_pipeline(true);
    EXPECT_EQ(knobs().at("image_cond_noise_scale"), KnobValue(0.15));
  }
  request_.conditions = {Condition{}, Condition{.frame_index = 16}};
  expect_condition_pipeline(true);
  request_.conditions = {Condition{}};
  request_.knobs.values["image_cond_noise_scale"] = 0.0;
  expect_condition_pipeline(true);
  request_.knobs.values.clear();
  request_.conditions.clear();
  request_.knobs.values["denoise_strength"] = 0.5;
  expect_condition_pipeline(true);
}

TEST_F(DescribeTest, AConditionedScheduleMayCloseWithZeroAndBeginLater) {
  std::map<std::string, KnobValue>& knobs = request_.knobs.values;
  knobs["timesteps"] = std::vector<double>{1000, 909, 725, 421, 0};
  EXPECT_THAT(ViolatedFields(), ElementsAre("ltx.timesteps"));
  knobs["denoise_strength"] = 0.999;
  EXPECT_THAT(ViolatedFields(), ElementsAre());
  knobs["timesteps"] = std::vector<double>{1000, 0, 500};
  EXPECT_THAT(ViolatedFields(), ElementsAre("ltx.timesteps"));
  knobs["timesteps"] = std::vector<double>{0};
  EXPECT_THAT(ViolatedFields(), ElementsAre("ltx.timesteps"));
  knobs["timesteps"] = std::vector<double>{1000, 500};
  knobs["denoise_strength"] = 0.4;
  EXPECT_THAT(ViolatedFields(), ElementsAre("ltx.denoise_strength"));
}

TEST(DescribeModelTest, SaysWhatAFolderLacks) {
  const TempDir folder;
  EXPECT_EQ(DescribeModel(folder.path()).status().code(), absl::StatusCode::kNotFound);
  folder.Write("model_index.json", "[]");
  EXPECT_EQ(DescribeModel(folder.path()).status().code(), absl::StatusCode::kInvalidArgument);
  folder.Write("model_index.json", R"({"_class_name":"WanPipeline"})");
  const absl::Status status = DescribeModel(folder.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("'WanPipeline', expected one of LTXPipeline, LTXImageToVideoPipeline, "
                        "LTXConditionPipeline"));
}

TEST(DescribeModelTest, AFolderOfTheHubsCacheIsToldFromAModel) {
  const TempDir folder;
  std::filesystem::create_directories(folder.path() + "/snapshots");
  EXPECT_THAT(std::string(DescribeModel(folder.path()).status().message()), HasSubstr("empty"));
  folder.Write("snapshots/0a1b/model_index.json", "{}");
  folder.Write("snapshots/2c3d/model_index.json", "{}");
  const absl::Status status = DescribeModel(folder.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("snapshots/0a1b or snapshots/2c3d"));
  // A model's own folder may hold one of that name.
  folder.Write("model_index.json", "[]");
  EXPECT_THAT(std::string(DescribeModel(folder.path()).status().message()),
              HasSubstr("not a JSON object"));
}

std::vector<std::string> WeightFilesIn(const std::string& folder, const std::string& variant) {
  const auto model = DescribeModel(folder, {}, variant);
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return {};
  const auto paths = WeightFiles(*model);
  EXPECT_TRUE(paths.ok()) << paths.status();
  return paths.value_or(std::vector<std::string>());
}

TEST(DescribeModelTest, AGitLfsPointerIsCalledOne) {
  const TempDir folder;
  folder.Write("model_index.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0a\n");
  EXPECT_THAT(std::string(DescribeModel(folder.path()).status().message()),
              HasSubstr("model_index.json' is a git-lfs pointer"));
}

// What bitsandbytes has stored: two elements of four bits in a byte, and what belongs to them.
TEST(DescribeModelTest, WeightsOfFourBitsCountByTheirElements) {
  const TempDir folder;
  testing::WriteBareModel(folder, {.pipeline_class = "LTXPipeline"});
  const std::string header =
      R"({"a.weight":{"dtype":"U8","shape":[2048,1],"data_offsets":[0,2048]},)"
      R"("a.weight.absmax":{"dtype":"F32","shape":[64],"data_offsets":[2048,2304]},)"
      R"("a.weight.quant_map":{"dtype":"F32","shape":[16],"data_offsets":[2304,2368]},)"
      R"("b.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[2368,2392]}})";
  folder.Write("transformer/model.safetensors",
               testing::SafetensorsBytes(header, std::string(2392, '\0')));
  const absl::StatusOr<ModelDescription> model = DescribeModel(folder.path());
  ASSERT_TRUE(model.ok()) << model.status();
  const auto transformer =
      std::find_if(model->components.begin(), model->components.end(),
                   [](const ComponentDescription& each) { return each.name == "transformer"; });
  EXPECT_EQ(transformer->weight_bytes, 2392);
  EXPECT_EQ(transformer->weight_elements, 4096 + 6);
  ASSERT_EQ(transformer->weights.size(), 2u);
  EXPECT_TRUE(transformer->weights[0].is_quantized);
  EXPECT_EQ(transformer->weights[0].bytes, 2048 + 256 + 64);
  EXPECT_FALSE(transformer->weights[1].is_quantized);
}

TEST(WeightFilesTest, AreThoseThatALoadReads) {
  namespace fs = std::filesystem;
  const TempDir folder;
  const std::string m = folder.path() + "/m";
  fs::copy(std::string(KINO_SOURCE_DIR) + "/models/demo", m, fs::copy_options::recursive);
  const std::string text_encoder = m + "/text_encoder/model",
                    vae = m + "/vae/diffusion_pytorch_model",
                    transformer = m + "/transformer/diffusion_pytorch_model";
  EXPECT_THAT(WeightFilesIn(m, ""),
              UnorderedElementsAre(text_encoder + ".safetensors", vae + ".safetensors",
                                   transformer + ".safetensors"));
  // A variant beside the others: they are not read.
  for (const std::string& path : {text_encoder, vae, transformer})
    fs::copy_file(path + ".safetensors", path + ".fp16.safetensors");
  EXPECT_THAT(WeightFilesIn(m, "fp16"),
              UnorderedElementsAre(text_encoder + ".fp16.safetensors", vae + ".fp16.safetensors",
                                   transformer + ".fp16.safetensors"));
  auto model = DescribeModel(m, {}, "fp16");
  EXPECT_THAT(model->ComponentsWithoutVariant(), ElementsAre());
  model->original_files = {{"transformer", "/elsewhere/t.gguf"}};
  EXPECT_THAT(*WeightFiles(*model),
              UnorderedElementsAre(text_encoder + ".fp16.safetensors", vae + ".fp16.safetensors",
                                   "/elsewhere/t.gguf"));
}

// As diffusers does it: component by component, but one at least has to have it.
TEST(WeightFilesTest, OfComponentsWithoutTheVariantThePlainOnesAreRead) {
  namespace fs = std::filesystem;
  const TempDir folder;
  const std::string m = folder.path() + "/m";
  fs::copy(std::string(KINO_SOURCE_DIR) + "/models/demo", m, fs::copy_options::recursive);
  const std::string text_encoder = m + "/text_encoder/model";
  const absl::Status without = DescribeModel(m, {}, "fp16").status();
  EXPECT_EQ(without.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(without.message()),
              HasSubstr("variant 'fp16': none of text_encoder, transformer, vae in"));
  // The text encoder is there as a variant only.
  fs::rename(text_encoder + ".safetensors", text_encoder + ".fp16.safetensors");
  const auto model = DescribeModel(m, {}, "fp16");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(model->ComponentsWithoutVariant(), ElementsAre("transformer", "vae"));
  // A transformer from a file of its own is none of the folder's.
  ModelDescription other = *model;
  other.original_files = {{"transformer", "/elsewhere/t.gguf"}};
  EXPECT_THAT(other.ComponentsWithoutVariant(), ElementsAre("vae"));
  EXPECT_THAT(WeightFilesIn(m, "fp16"),
              UnorderedElementsAre(text_encoder + ".fp16.safetensors",
                                   m + "/vae/diffusion_pytorch_model.safetensors",
                                   m + "/transformer/diffusion_pytorch_model.safetensors"));
  for (const char* variant : {"", "bf16"}) {
    const absl::Status unread = DescribeModel(m, {}, variant).status();
    EXPECT_EQ(unread.code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(std::string(unread.message()), HasSubstr("weights of variant fp16"));
  }
}

// A VAE is made lossy by its own name only.
TEST(WeightPlanTest, WhatIsSaidOfTheWholeModelIsNotOfTheVae) {
  Plan plan;
  plan.quantize = "nf4";
  plan.storage_dtype = "float8_e4m3fn";
  EXPECT_EQ(WeightPlanOf(plan, "transformer", /*is_autoencoder=*/false)->quantize,
            QuantScheme::kNf4);
  EXPECT_TRUE(WeightPlanOf(plan, "vae", /*is_autoencoder=*/true)->lossless());
  plan.quantize = "nf4,vae=int8wo";
  EXPECT_EQ(WeightPlanOf(plan, "vae", /*is_autoencoder=*/true)->quantize, QuantScheme::kInt8Wo);
}

TEST(ResidencyPolicyTest, ParsesWhatItPrints) {
  for (const char* text : {"none", "model", "block:1", "block:12", "leaf", "sequential"}) {
    const auto policy = ResidencyPolicy::Parse(text);
    EXPECT_TRUE(policy.ok()) << policy.status();
    if (!policy.ok()) continue;
    EXPECT_EQ(policy->ToString(), text);
  }
  for (const char* text : {"block", "block:", "block:0", "block:-1", "block:1x", "leafs", "NONE"}) {
    EXPECT_EQ(ResidencyPolicy::Parse(text).status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
}

}  // namespace
}  // namespace kino::engine
