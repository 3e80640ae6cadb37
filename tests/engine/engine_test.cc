// The engine through its public door, on the shipped demo model.
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <map>

#include "engine/core/memory_counter.h"

namespace kino::engine {
namespace {

using ::testing::HasSubstr;

const std::string kDemo = std::string(KINO_SOURCE_DIR) + "/models/demo";

// One engine for all tests: the threads and the memory counter are the process's.
Engine& TheEngine() {
  static Engine* engine = Engine::Create({.device = "cpu", .threads = 1})->release();
  return *engine;
}

std::shared_ptr<Model> LoadDemo(const ModelOptions& options = {.folder = kDemo}) {
  absl::StatusOr<std::shared_ptr<Model>> model = TheEngine().Load(options, nullptr);
  EXPECT_TRUE(model.ok()) << model.status();
  return *model;
}

// Small enough for any test; num_frames is 4 * k + 1.
Request DemoRequest(const Model& model, int num_frames = 9, int steps = 3) {
  Request request;
  request.prompt = "a red star moving to the right over a dark blue background";
  request.height = request.width = 64;
  request.num_frames = num_frames;
  request.num_inference_steps = steps;
  request.guidance_scale = 4.0;
  request.fps = 8.0;
  request.ltx = LtxOptions{};
  request.ltx->frame_rate = 8.0;
  request.seed = 11;
  const ResolvedRequest resolved = ResolveRequest(model.description(), request, 0);
  EXPECT_TRUE(resolved.violations.empty());
  return resolved.request;
}

struct Rendered {
  absl::Status status;
  std::vector<float> pixels;
  std::vector<int> chunks;  // frames of each call
  RunResult result;
};

Rendered Render(Model& model, const Request& request, std::vector<MediaInput> media = {},
                const CancelToken* cancel = nullptr) {
  Rendered rendered;
  RunOptions options;
  options.cancel = cancel;
  options.output.frames = [&rendered](const FloatFrames& frames) {
    int expected = 0;
    for (const int count : rendered.chunks) expected += count;
    EXPECT_EQ(frames.first_frame, expected);
    rendered.chunks.push_back(frames.num_frames);
    rendered.pixels.insert(
        rendered.pixels.end(), frames.data,
        frames.data + int64_t{3} * frames.num_frames * frames.height * frames.width);
    return absl::OkStatus();
  };
  absl::StatusOr<std::unique_ptr<Run>> run =
      model.Start(request, std::move(media), std::move(options));
  if (!run.ok()) {
    rendered.status = run.status();
    return rendered;
  }
  double fraction = 0;
  uint64_t counter = 0;
  for (;;) {
    const absl::StatusOr<bool> more = (*run)->Advance();
    rendered.status = more.status();
    if (!more.ok()) return rendered;
    EXPECT_GE((*run)->progress().fraction, fraction);
    fraction = (*run)->progress().fraction;
    if (!*more) break;
    EXPECT_GT((*run)->progress_counter(), counter);
    counter = (*run)->progress_counter();
  }
  EXPECT_EQ(fraction, 1.0);
  rendered.result = (*run)->result();
  return rendered;
}

TEST(EngineTest, GivesFramesInOrderAndStatisticsOfEveryStage) {
  const auto model = LoadDemo();
  const Rendered rendered = Render(*model, DemoRequest(*model, 65));
  ASSERT_TRUE(rendered.status.ok()) << rendered.status;
  EXPECT_EQ(rendered.pixels.size(), 65u * 64 * 64 * 3);
  EXPECT_GE(rendered.chunks.size(), 3u);  // the decoder gives frames as they become final
  EXPECT_EQ(rendered.result.num_frames, 65);
  EXPECT_EQ(rendered.result.step_seconds.size(), 3u);
  std::map<Stage, StageStats> stages;
  for (const StageStats& stats : rendered.result.stages) stages[stats.stage] = stats;
  for (const Stage stage : {Stage::kEncodeText, Stage::kDenoise, Stage::kDecode}) {
    ASSERT_TRUE(stages.contains(stage)) << StageName(stage);
    EXPECT_GT(stages[stage].seconds, 0);
    EXPECT_GT(stages[stage].peak_device_bytes, 0);
  }
  for (const float pixel : rendered.pixels) ASSERT_TRUE(pixel >= 0 && pixel <= 1);
}

TEST(EngineTest, TheSameSeedGivesTheSameFramesAndAnotherOthers) {
  const auto model = LoadDemo();
  Request request = DemoRequest(*model);
  const Rendered first = Render(*model, request);
  EXPECT_EQ(Render(*model, request).pixels, first.pixels);
  request.seed = 12;
  EXPECT_NE(Render(*model, request).pixels, first.pixels);
}

TEST(EngineTest, OffloadGivesTheSameFrames) {
  const auto model = LoadDemo();
  Request request = DemoRequest(*model);
  const Rendered resident = Render(*model, request);
  EXPECT_EQ(resident.result.plan.offload, "none");
  for (const char* offload : {"model", "sequential", "leaf", "block:1", "block:2"}) {
    request.plan.offload = offload;
    const Rendered rendered = Render(*model, request);
    EXPECT_EQ(rendered.pixels, resident.pixels) << offload;
    EXPECT_EQ(rendered.result.plan.offload, offload);
  }
  // A request without a plan gets the model's own again.
  request.plan.offload.reset();
  EXPECT_EQ(Render(*model, request).result.plan.offload, "none");
}

TEST(EngineTest, ABfloat16CheckpointOnTheCpuIsHeldOnce) {
  TheEngine();
  const int64_t before = HostMemoryCount().live_bytes;
  const auto model = LoadDemo({.folder = kDemo, .dtype = DType::kBF16});
  // Its bytes are the mapped file's; nothing of them is copied.
  EXPECT_LT(HostMemoryCount().live_bytes - before, 100'000);
  EXPECT_GT(model->description().WeightBytes(DType::kBF16), 20'000'000);
}

TEST(EngineTest, ModelsThatNameTheSameFilesShareThem) {
  TheEngine();
  const int64_t before = HostMemoryCount().live_bytes;
  const auto first = LoadDemo();
  const int64_t once = HostMemoryCount().live_bytes - before;
  // float32 of a bfloat16 checkpoint: a copy of every weight.
  EXPECT_NEAR(static_cast<double>(once),
              static_cast<double>(first->description().WeightBytes(DType::kF32)), 200'000);
  const auto second = LoadDemo();
  EXPECT_LT(HostMemoryCount().live_bytes - before - once, 1000);
}

TEST(EngineTest, ARunLeavesNothingBehindButItsPromptEmbeddings) {
  const auto model = LoadDemo();
  const Request request = DemoRequest(*model);
  Render(*model, request);
  const int64_t before = HostMemoryCount().live_bytes;
  Render(*model, request);
  EXPECT_EQ(HostMemoryCount().live_bytes, before);
}

TEST(EngineTest, ACancelledRunEndsAtOnceAndLeavesNothingBehind) {
  const auto model = LoadDemo();
  const Request request = DemoRequest(*model);
  Render(*model, request);
  const int64_t before = HostMemoryCount().live_bytes;
  CancelToken cancel;
  cancel.Cancel();
  EXPECT_EQ(Render(*model, request, {}, &cancel).status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(HostMemoryCount().live_bytes, before);
}

TEST(EngineTest, ASinkThatFailsEndsTheRunWithItsStatus) {
  const auto model = LoadDemo();
  RunOptions options;
  options.output.frames = [](const FloatFrames&) {
    return absl::ResourceExhaustedError("disk full");
  };
  auto run = model->Start(DemoRequest(*model), {}, std::move(options));
  ASSERT_TRUE(run.ok()) << run.status();
  absl::StatusOr<bool> more = true;
  while (more.ok() && *more) more = (*run)->Advance();
  EXPECT_EQ(more.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(more.status().message()), HasSubstr("disk full"));
}

TEST(EngineTest, AnImageBecomesTheFirstFrame) {
  const auto model = LoadDemo();
  Request request = DemoRequest(*model, 9, 5);
  request.task = Task::kImageToVideo;
  request.conditions = {Condition{}};
  // A red square on dark blue, twice the size: it is resized.
  MediaInput image{.width = 128, .height = 128, .num_frames = 1, .rgb = {}};
  for (int y = 0; y < 128; ++y) {
    for (int x = 0; x < 128; ++x) {
      const bool inside = x > 40 && x < 88 && y > 40 && y < 88;
      const std::array<uint8_t, 3> color =
          inside ? std::array<uint8_t, 3>{225, 30, 30} : std::array<uint8_t, 3>{12, 18, 80};
      image.rgb.insert(image.rgb.end(), color.begin(), color.end());
    }
  }
  const Rendered rendered = Render(*model, request, {image});
  ASSERT_TRUE(rendered.status.ok()) << rendered.status;
  const auto pixel = [&rendered](int x, int y, int c) {
    return rendered.pixels[(y * 64 + x) * 3 + c];
  };
  EXPECT_GT(pixel(32, 32, 0), 0.6f);
  EXPECT_LT(pixel(32, 32, 2), 0.4f);
  EXPECT_LT(pixel(4, 4, 0), 0.3f);
}

TEST(EngineTest, MediaThatDoesNotFitIsRefused) {
  const auto model = LoadDemo();
  Request request = DemoRequest(*model);
  request.task = Task::kImageToVideo;
  request.conditions = {Condition{}};
  EXPECT_EQ(Render(*model, request).status.code(), absl::StatusCode::kInvalidArgument);
  const MediaInput truncated{
      .width = 64, .height = 64, .num_frames = 1, .rgb = std::vector<uint8_t>(100)};
  const absl::Status status = Render(*model, request, {truncated}).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("conditions[0]"));
}

TEST(EngineTest, DevicesNobodyHasAreRefused) {
  for (const char* name : {"tpu", "cuda:x", "cuda:-1", "cpu:0", ""}) {
    EXPECT_EQ(Engine::Create({.device = name}).status().code(), absl::StatusCode::kInvalidArgument)
        << name;
  }
  EXPECT_EQ(Engine::Create({.device = "cuda:99"}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(EngineTest, ModelsThatCannotBeLoadedSayWhy) {
  EXPECT_EQ(TheEngine().Load({.folder = "/nonexistent"}, nullptr).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(TheEngine().Load({.folder = kDemo, .dtype = DType::kI8}, nullptr).status().code(),
            absl::StatusCode::kInvalidArgument);
  ModelOptions unknown_offload{.folder = kDemo};
  unknown_offload.plan.offload = "sometimes";
  EXPECT_EQ(TheEngine().Load(unknown_offload, nullptr).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(TheEngine().Load({.folder = kDemo, .variant = "fp16"}, nullptr).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace kino::engine
