// What LTX-Video's long videos are asked for with, and how they are cut.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <filesystem>
#include <fstream>
#include <optional>

#include "engine/core/json.h"
#include "engine/describe/describe.h"
#include "engine/models/ltx/describe.h"
#include "engine/models/ltx/long_windows.h"
#include "tests/support/resolving_test.h"
#include "tests/support/temp_dir.h"

namespace kino::engine {
namespace {

using ::kino::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

std::vector<LtxWindow> Windows(int64_t frames, int tile_size, int overlap) {
  LtxKnobs knobs;
  knobs.temporal_tile_size = tile_size;
  knobs.temporal_overlap = overlap;
  return SplitIntoWindows(frames, LtxWindowSizes(knobs, 8));
}

// The numbers of frames are those that diffusers' pipeline was seen to give.
TEST(LtxLongWindowsTest, AreCutAndJoinedAsUpstreamDoes) {
  EXPECT_THAT(Windows(4, 80, 24), ElementsAre(LtxWindow{0, 4, 0, 4}));
  EXPECT_THAT(Windows(4, 32, 24), ElementsAre(LtxWindow{0, 4, 0, 4}));
  EXPECT_THAT(Windows(9, 40, 24),
              ElementsAre(LtxWindow{0, 5, 0, 5}, LtxWindow{2, 7, 5, 7}, LtxWindow{4, 9, 7, 9}));
  EXPECT_THAT(Windows(8, 40, 31),
              ElementsAre(LtxWindow{0, 5, 0, 5}, LtxWindow{2, 7, 5, 7}, LtxWindow{4, 8, 7, 8}));
  EXPECT_THAT(Windows(7, 24, 8),
              ElementsAre(LtxWindow{0, 3, 0, 3}, LtxWindow{2, 5, 3, 5}, LtxWindow{4, 7, 5, 7}));
  // Two latent frames, or none: another number than was asked for.
  EXPECT_THAT(Windows(7, 32, 16),
              ElementsAre(LtxWindow{0, 4, 0, 4}, LtxWindow{2, 6, 4, 7}, LtxWindow{4, 7, 7, 9}));
  EXPECT_THAT(Windows(7, 24, 7),
              ElementsAre(LtxWindow{0, 3, 0, 3}, LtxWindow{3, 6, 3, 5}, LtxWindow{6, 7, 5, 5}));
  // Less than a latent frame is one.
  EXPECT_THAT(Windows(2, 3, 0), ElementsAre(LtxWindow{0, 1, 0, 1}, LtxWindow{1, 2, 1, 1}));
}

class LtxLongDescribeTest : public testing::ResolvingTest {
 protected:
  LtxLongDescribeTest() {
    model_ = Describe("LTXPipeline", "FlowMatchEulerDiscreteScheduler");
    request_.prompt = "a red star | a blue one";
    request_.height = 128;
    request_.width = 128;
    request_.num_frames = 33;
  }

  // The demo model, whose VAE makes one latent of 4 frames and 16 x 16 pixels, under another class.
  absl::StatusOr<ModelDescription> Try(const std::string& pipeline, const std::string& scheduler) {
    namespace fs = std::filesystem;
    const fs::path demo = std::string(KINO_SOURCE_DIR) + "/models/demo";
    folders_.emplace_back();
    const fs::path folder = folders_.back().path();
    nlohmann::json index = *ReadJsonFile((demo / "model_index.json").string());
    index["_class_name"] = pipeline;
    std::ofstream(folder / "model_index.json") << index;
    for (const char* name : {"text_encoder", "tokenizer", "transformer", "vae"})
      fs::create_directory_symlink(demo / name, folder / name);
    fs::create_directory(folder / "scheduler");
    std::ofstream(folder / "scheduler/scheduler_config.json")
        << nlohmann::json({{"_class_name", scheduler}, {"eta", 0.5}, {"shift", 3.0}});
    return DescribeModel(folder.string());
  }
  ModelDescription Describe(const std::string& pipeline, const std::string& scheduler) {
    const auto model = Try(pipeline, scheduler);
    EXPECT_TRUE(model.ok()) << model.status();
    return *model;
  }
  std::map<std::string, KnobValue>& knobs() { return request_.knobs.values; }
  Request Resolved() {
    const ResolvedRequest resolved = Resolve();
    EXPECT_THAT(ViolatedFields(), IsEmpty());
    EXPECT_EQ(ResolveRequest(model_, resolved.request, 1).request, resolved.request);
    return resolved.request;
  }

  std::deque<TempDir> folders_;
};

TEST_F(LtxLongDescribeTest, TemporalTileSizeAsksForWindowsWhereTheFolderDoesNot) {
  EXPECT_FALSE(RunsLongPipeline(Resolved()));
  EXPECT_FALSE(Resolved().knobs.values.contains("temporal_overlap"));
  knobs()["temporal_tile_size"] = int64_t{20};
  knobs()["temporal_overlap"] = int64_t{12};
  const Request resolved = Resolved();
  EXPECT_TRUE(RunsLongPipeline(resolved));
  EXPECT_FALSE(RunsConditionPipeline(resolved));
  const std::map<std::string, KnobValue>& values = resolved.knobs.values;
  EXPECT_EQ(values.at("temporal_overlap"), KnobValue(int64_t{12}));
  EXPECT_EQ(values.at("temporal_overlap_cond_strength"), KnobValue(0.5));
  EXPECT_EQ(values.at("adain_factor"), KnobValue(0.25));
  EXPECT_EQ(values.at("skip_steps_sigma_threshold"), KnobValue(1.0));
  EXPECT_EQ(values.at("decode_horizontal_tiles"), KnobValue(int64_t{4}));
  EXPECT_EQ(values.at("decode_vertical_tiles"), KnobValue(int64_t{4}));
  EXPECT_EQ(values.at("decode_overlap"), KnobValue(int64_t{3}));
  // The task's own defaults stay.
  EXPECT_EQ(resolved.num_inference_steps, 50);
  EXPECT_EQ(resolved.guidance_scale, 3.0);
  EXPECT_EQ(values.at("decode_timestep"), KnobValue(0.0));
  EXPECT_EQ(values.at("max_sequence_length"), KnobValue(int64_t{128}));
}

TEST_F(LtxLongDescribeTest, AFolderOfTheClassHasUpstreamsDefaults) {
  for (const char* scheduler :
       {"LTXEulerAncestralRFScheduler", "FlowMatchEulerDiscreteScheduler"}) {
    model_ = Describe("LTXI2VLongMultiPromptPipeline", scheduler);
    ASSERT_EQ(model_.details->tasks().size(), 2u);
    const Request resolved = Resolved();
    EXPECT_TRUE(RunsLongPipeline(resolved));
    EXPECT_EQ(resolved.num_inference_steps, 8);
    EXPECT_EQ(resolved.guidance_scale, 1.0);
    EXPECT_EQ(model_.Tasks()[1].defaults.num_frames, 161);
    EXPECT_EQ(resolved.knobs.values.at("temporal_tile_size"), KnobValue(int64_t{80}));
    EXPECT_EQ(resolved.knobs.values.at("temporal_overlap"), KnobValue(int64_t{24}));
    EXPECT_EQ(resolved.knobs.values.at("decode_timestep"), KnobValue(0.05));
    EXPECT_EQ(resolved.knobs.values.at("decode_noise_scale"), KnobValue(0.025));
  }
  request_.task = Task::kVideoToVideo;
  EXPECT_THAT(ViolatedFields(), ElementsAre("task"));
}

TEST_F(LtxLongDescribeTest, TheAncestralSchedulerIsOfThatClassAlone) {
  const absl::Status status = Try("LTXPipeline", "LTXEulerAncestralRFScheduler").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("LTXI2VLongMultiPromptPipeline's"));
  EXPECT_EQ(Try("LTXI2VLongMultiPromptPipeline", "DDIMScheduler").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(LtxLongDescribeTest, KnobsThatContradictAreRefusedByName) {
  knobs() = {
      {"temporal_overlap", int64_t{8}}, {"adain_factor", 0.1}, {"decode_overlap", int64_t{1}}};
  EXPECT_THAT(ViolatedFields(), UnorderedElementsAre("ltx.temporal_overlap", "ltx.adain_factor",
                                                     "ltx.decode_overlap"));
  knobs() = {{"temporal_tile_size", int64_t{80}}};
  EXPECT_THAT(ViolatedFields(), IsEmpty());
  knobs()["denoise_strength"] = 0.5;
  EXPECT_THAT(ViolatedFields(), ElementsAre("ltx.denoise_strength"));
  knobs() = {{"temporal_tile_size", int64_t{80}}, {"timesteps", std::vector<double>{1000, 500}}};
  EXPECT_THAT(ViolatedFields(), ElementsAre("ltx.timesteps"));
  request_.conditions = {Condition{}};
  knobs() = {{"temporal_tile_size", int64_t{80}}, {"image_cond_noise_scale", 0.1}};
  EXPECT_THAT(ViolatedFields(), ElementsAre("ltx.image_cond_noise_scale"));
  request_.conditions = {Condition{.kind = ConditionKind::kVideo}};
  knobs() = {{"temporal_tile_size", int64_t{80}}};
  EXPECT_THAT(ViolatedFields(), ElementsAre("ltx.temporal_tile_size"));
}

TEST_F(LtxLongDescribeTest, TheConditionIsOneImageAtTheBeginning) {
  knobs()["temporal_tile_size"] = int64_t{80};
  request_.task = Task::kImageToVideo;
  EXPECT_THAT(ViolatedFields(), ElementsAre("conditions"));
  for (const double strength : {0.0, 0.5, 1.0}) {
    request_.conditions = {Condition{.strength = strength}};
    EXPECT_TRUE(RunsLongPipeline(Resolved()));
  }
  request_.conditions = {Condition{.frame_index = 8}};
  EXPECT_THAT(ViolatedFields(), ElementsAre("conditions[0].frame_index"));
  request_.conditions = {Condition{}, Condition{}};
  EXPECT_THAT(ViolatedFields(), ElementsAre("conditions"));
}

TEST_F(LtxLongDescribeTest, SizesThatCannotBeAreNamed) {
  knobs() = {{"temporal_tile_size", int64_t{24}}, {"temporal_overlap", int64_t{24}}};
  EXPECT_THAT(ViolatedFields(), ElementsAre("ltx.temporal_overlap"));
  request_.num_frames = 21;  // one window
  EXPECT_THAT(ViolatedFields(), IsEmpty());
  request_.width = 32;  // two latents, where three are shared
  EXPECT_THAT(ViolatedFields(), ElementsAre("ltx.decode_horizontal_tiles"));
  knobs()["decode_overlap"] = int64_t{2};
  EXPECT_THAT(ViolatedFields(), IsEmpty());
  knobs()["decode_overlap"] = int64_t{0};
  EXPECT_THAT(ViolatedFields(), ElementsAre("ltx.decode_horizontal_tiles"));
  knobs()["decode_horizontal_tiles"] = int64_t{1};
  EXPECT_THAT(ViolatedFields(), IsEmpty());
  request_.height = 32;
  EXPECT_THAT(ViolatedFields(), ElementsAre("ltx.decode_vertical_tiles"));
}

TEST_F(LtxLongDescribeTest, TilesThatEncodeAreWholeLatents) {
  VaeTiling& tiling = request_.plan.vae_tiling.emplace();
  tiling.tile_sample_min_height = 72;
  tiling.tile_sample_stride_height = 56;
  EXPECT_THAT(ViolatedFields(), IsEmpty());
  request_.task = Task::kImageToVideo;
  request_.conditions = {{.kind = ConditionKind::kImage}};
  EXPECT_THAT(ViolatedFields(), ElementsAre("plan.vae_tiling"));
  tiling.tile_sample_min_height = 64;
  tiling.tile_sample_stride_height = 32;
  EXPECT_THAT(ViolatedFields(), IsEmpty());
}

TEST_F(LtxLongDescribeTest, TilesOfItsTilesAreWholeLatents) {
  VaeTiling& tiling = request_.plan.vae_tiling.emplace();
  tiling.tile_sample_min_height = 72;
  tiling.tile_sample_stride_height = 56;
  EXPECT_THAT(ViolatedFields(), IsEmpty());
  knobs()["temporal_tile_size"] = int64_t{80};
  EXPECT_THAT(ViolatedFields(), ElementsAre("plan.vae_tiling"));
  tiling.tile_sample_min_height = 64;
  tiling.tile_sample_stride_height = 48;
  EXPECT_THAT(ViolatedFields(), IsEmpty());
  tiling.tile_sample_min_num_frames = 18;
  tiling.tile_sample_stride_num_frames = 10;
  EXPECT_THAT(ViolatedFields(), IsEmpty());
  tiling.framewise = true;
  EXPECT_THAT(ViolatedFields(), ElementsAre("plan.vae_tiling"));
  // Each size by itself: of pixels, 16 a latent here, and of frames, 4.
  const VaeTiling whole = {.tile_sample_min_height = 64,
                           .tile_sample_min_width = 64,
                           .tile_sample_min_num_frames = 16,
                           .tile_sample_stride_height = 48,
                           .tile_sample_stride_width = 48,
                           .tile_sample_stride_num_frames = 8,
                           .framewise = true};
  tiling = whole;
  EXPECT_THAT(ViolatedFields(), IsEmpty());
  for (std::optional<int> VaeTiling::*const size :
       {&VaeTiling::tile_sample_min_height, &VaeTiling::tile_sample_min_width,
        &VaeTiling::tile_sample_min_num_frames, &VaeTiling::tile_sample_stride_height,
        &VaeTiling::tile_sample_stride_width, &VaeTiling::tile_sample_stride_num_frames}) {
    tiling = whole;
    tiling.*size = *(whole.*size) + 2;
    EXPECT_THAT(ViolatedFields(), ElementsAre("plan.vae_tiling")) << *(tiling.*size);
  }
}

TEST_F(LtxLongDescribeTest, ALongVideoMayBeLargerThanOneWindow) {
  request_.height = request_.width = 512;
  request_.num_frames = 8001;
  EXPECT_THAT(ViolatedFields(), ElementsAre("num_frames"));
  knobs()["temporal_tile_size"] = int64_t{80};
  EXPECT_THAT(ViolatedFields(), IsEmpty());
  knobs()["temporal_tile_size"] = int64_t{6000};
  EXPECT_THAT(ViolatedFields(), ElementsAre("ltx.temporal_tile_size"));
}

TEST_F(LtxLongDescribeTest, StepsAreThoseOfUpstreamsLoop) {
  model_ = Describe("LTXI2VLongMultiPromptPipeline", "LTXEulerAncestralRFScheduler");
  const LtxSampler ancestral = {.table = {}, .ancestral = EulerAncestralRfConfig{}};
  const auto steps = [&](const LtxSampler& sampler) {
    const auto schedule = LtxLongSchedule(sampler, Resolved());
    EXPECT_TRUE(schedule.ok()) << schedule.status();
    EXPECT_EQ(schedule->sigmas.size(), schedule->timesteps.size() + 1);
    return schedule->sigmas;
  };
  // Of a table the last step, to 0, is left out.
  request_.num_inference_steps = 3;
  EXPECT_EQ(steps(ancestral), steps({}));
  EXPECT_EQ(steps({}).size(), 3u);
  EXPECT_GT(steps({}).back(), 0);
  // Of given sigmas the ancestral sampler has them all, the other all but its own 0.
  knobs()["sigmas"] = std::vector<double>{1, 0.75, 0.5, 0};
  EXPECT_THAT(steps(ancestral), ElementsAre(1, 0.75, 0.5, 0));
  EXPECT_THAT(steps({}), ElementsAre(1, 0.75, 0.5, 0));
  EXPECT_EQ(Resolved().num_inference_steps, 4);
  knobs()["skip_steps_sigma_threshold"] = 0.75;
  EXPECT_THAT(steps(ancestral), ElementsAre(0.75, 0.5, 0));
  knobs()["skip_steps_sigma_threshold"] = 0.0;  // off
  EXPECT_THAT(steps(ancestral), ElementsAre(1, 0.75, 0.5, 0));
  // Where tokens shift a table, it stays as it is: upstream refuses.
  const LtxSampler dynamic = {.table = {.use_dynamic_shifting = true}};
  EXPECT_THAT(steps(dynamic), ElementsAre(1, 0.75, 0.5, 0));

  knobs()["skip_steps_sigma_threshold"] = 0.4;
  EXPECT_THAT(ViolatedFields(), ElementsAre("num_inference_steps"));
  knobs().clear();
  request_.num_inference_steps = 1;
  EXPECT_THAT(ViolatedFields(), ElementsAre("num_inference_steps"));
}

}  // namespace
}  // namespace kino::engine
