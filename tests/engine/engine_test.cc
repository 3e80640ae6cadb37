// The engine through its public door, on the shipped demo model.
#include "engine/engine.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "engine/core/machine.h"
#include "engine/core/memory_counter.h"
#include "engine/describe/plan.h"

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
  request.knobs.values["frame_rate"] = 8.0;
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

// after_step is called between the steps.
Rendered Render(Model& model, const Request& request, std::vector<MediaInput> media = {},
                const CancelToken* cancel = nullptr,
                const std::function<void(const Rendered&)>& after_step = nullptr) {
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
    if (after_step) after_step(rendered);
    EXPECT_GT((*run)->pulse().counter, counter);
    counter = (*run)->pulse().counter;
  }
  EXPECT_EQ(fraction, 1.0);
  rendered.result = (*run)->result();
  return rendered;
}

TEST(EngineTest, Float32StaysFloat32) {
  at::globalContext().setAllowTF32CuDNN(true);  // torch's default
  ASSERT_TRUE(Engine::Create({.device = "cpu", .threads = 1}).ok());
  EXPECT_FALSE(at::globalContext().allowTF32CuDNN());
  EXPECT_FALSE(at::globalContext().allowTF32CuBLAS());
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
    EXPECT_TRUE(stages.contains(stage)) << StageName(stage);
    if (!stages.contains(stage)) continue;
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

// Most bytes at a time in any stage.
int64_t Peak(const RunResult& result) {
  int64_t peak = 0;
  for (const StageStats& stage : result.stages) peak = std::max(peak, stage.peak_device_bytes);
  return peak;
}

Rendered RenderUnder(Model& model, Request request, const Plan& plan) {
  request.plan = plan;
  return Render(model, request);
}

TEST(EngineTest, AutoTakesAPlanThatKeepsBelowTheLimit) {
  const auto model = LoadDemo();
  const Request request = DemoRequest(*model, 17);
  Plan plan;
  plan.offload = "none";
  const Rendered resident = RenderUnder(*model, request, plan);
  plan.offload = "leaf";
  const Rendered leaf = RenderUnder(*model, request, plan);
  ASSERT_LT(Peak(leaf.result), Peak(resident.result) * 4 / 5);

  Plan automatic;
  automatic.mode = "auto";
  EXPECT_EQ(RenderUnder(*model, request, automatic).result.plan.offload, "none");
  automatic.max_device_memory = (Peak(leaf.result) + Peak(resident.result)) / 2;
  const Rendered limited = RenderUnder(*model, request, automatic);
  ASSERT_EQ(limited.status, absl::OkStatus());
  EXPECT_NE(limited.result.plan.offload, "none");
  EXPECT_LE(Peak(limited.result), *automatic.max_device_memory);
  EXPECT_EQ(limited.pixels, resident.pixels);

  Plan smallest;
  smallest.mode = "smallest";
  // The counter counts what malloc sets aside, which varies by a few bytes.
  EXPECT_LE(Peak(RenderUnder(*model, request, smallest).result), Peak(leaf.result) + 4096);
}

// The two largest sums of weight bytes, as computed with, over layers (a name without its last
// part) or, with `by_block`, over the transformer's blocks.
int64_t TwoLargest(const ComponentDescription& component, bool by_block) {
  std::map<std::string, int64_t> sums;
  for (const WeightTensor& weight : component.weights) {
    std::string key = weight.name.substr(0, weight.name.rfind('.'));
    if (by_block) {
      if (!weight.name.starts_with("transformer_blocks.")) continue;
      key = weight.name.substr(0, weight.name.find('.', std::string("transformer_blocks.").size()));
    }
    sums[key] += weight.elements * 4;
  }
  std::vector<int64_t> bytes;
  for (const auto& [key, sum] : sums) bytes.push_back(sum);
  std::sort(bytes.rbegin(), bytes.rend());
  return bytes.at(0) + bytes.at(1);
}

TEST(EngineTest, TheDemoModelsWeightsTakeTheirSlotsAndNoMore) {
  const auto model = LoadDemo();
  Request request = DemoRequest(*model);
  const auto weights_by_stage = [&](const char* offload) {
    // No prompt of another run, whose states the cache holds.
    request.prompt = absl::StrCat("a green square rising, weights moved by ", offload);
    Plan plan;
    plan.offload = offload;
    std::map<Stage, int64_t> weights;
    for (const StageStats& stage : RenderUnder(*model, request, plan).result.stages)
      weights[stage.stage] = stage.peak_weight_bytes;
    return weights;
  };
  std::map<std::string, ComponentDescription> components;
  for (const ComponentDescription& component : model->description().components)
    components[component.name] = component;
  const std::map<Stage, int64_t> leaf = weights_by_stage("leaf");
  for (const auto& [stage, name] :
       {std::pair{Stage::kEncodeText, "text_encoder"}, std::pair{Stage::kDenoise, "transformer"},
        std::pair{Stage::kDecode, "vae"}}) {
    EXPECT_GT(leaf.at(stage), 0) << name;
    EXPECT_LE(leaf.at(stage), TwoLargest(components.at(name), /*by_block=*/false)) << name;
  }
  // prefetch + 1 blocks, with what comes before the first and behind the last.
  EXPECT_LE(weights_by_stage("block:1").at(Stage::kDenoise),
            TwoLargest(components.at("transformer"), /*by_block=*/true));
}

TEST(EngineTest, WhatCannotFitIsRefusedWithNeedAndHave) {
  const auto model = LoadDemo();
  Plan plan;
  plan.mode = "auto";
  plan.max_device_memory = int64_t{3} << 20;
  const Rendered refused = RenderUnder(*model, DemoRequest(*model), plan);
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.status.message()), HasSubstr("3 MiB may be used"));
}

// Memory of another kind in the same process: what no prediction knows of.
class Hog {
 public:
  explicit Hog(int64_t bytes) : tensor_(at::empty({bytes}, at::TensorOptions().dtype(at::kByte))) {}

 private:
  at::Tensor tensor_;
};

TEST(EngineTest, OutOfMemoryFallsOnePlanLowerWithinTheRun) {
  const auto model = LoadDemo();
  const Request request = DemoRequest(*model, 17);
  const Rendered resident = Render(*model, request);
  Plan plan;
  // Enough, as far as the planner can see.
  plan.max_device_memory = Peak(resident.result) * 5 / 4;
  ASSERT_EQ(RenderUnder(*model, request, plan).result.plan.offload, "none");
  const int64_t before = HostMemoryCount().live_bytes;
  {
    const Hog hog(*plan.max_device_memory - Peak(resident.result) * 3 / 4);
    const Rendered fallen = RenderUnder(*model, request, plan);
    ASSERT_EQ(fallen.status, absl::OkStatus());
    EXPECT_NE(fallen.result.plan.offload, "none");
    EXPECT_EQ(fallen.pixels, resident.pixels);
  }
  EXPECT_LE(HostMemoryCount().live_bytes, before);
}

TEST(EngineTest, OutOfMemoryHalfwayThroughTheFramesRepeatsNone) {
  const auto model = LoadDemo();
  Request request = DemoRequest(*model, 65);
  const Rendered resident = Render(*model, request);
  ASSERT_GT(resident.chunks.size(), 2u);
  request.plan.max_device_memory = Peak(resident.result) * 5 / 4;
  std::optional<Hog> hog;
  const Rendered fallen = Render(*model, request, {}, nullptr, [&](const Rendered& so_far) {
    if (!hog && !so_far.chunks.empty())
      hog.emplace(*request.plan.max_device_memory - Peak(resident.result) * 3 / 4);
  });
  ASSERT_EQ(fallen.status, absl::OkStatus());
  EXPECT_NE(fallen.result.plan.offload, "none");
  EXPECT_EQ(fallen.result.num_frames, 65);
  EXPECT_EQ(fallen.pixels, resident.pixels);
}

TEST(EngineTest, OutOfMemoryForGoodFailsOneRunAndNoOther) {
  const auto model = LoadDemo();
  const Request request = DemoRequest(*model);
  const Rendered expected = Render(*model, request);
  Request hungry = DemoRequest(*model, 17);
  hungry.plan.mode = "fastest";
  hungry.plan.max_device_memory = Peak(Render(*model, hungry).result) * 5 / 4;
  std::vector<float> pixels;
  RunOptions options;
  options.output.frames = [&pixels](const FloatFrames& frames) {
    pixels.insert(pixels.end(), frames.data,
                  frames.data + int64_t{3} * frames.num_frames * frames.height * frames.width);
    return absl::OkStatus();
  };
  auto other = model->Start(request, {}, std::move(options));
  ASSERT_TRUE(other.ok()) << other.status();
  ASSERT_TRUE((*other)->Advance().ok());
  const int64_t before = HostMemoryCount().live_bytes;
  {
    const Hog hog(*hungry.plan.max_device_memory * 9 / 10);
    const Rendered failed = Render(*model, hungry);
    EXPECT_EQ(failed.status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(failed.status.message()),
                ::testing::AllOf(HasSubstr("out of memory in"), HasSubstr("predicted to need"),
                                 HasSubstr(absl::StrCat(*hungry.plan.max_device_memory))));
  }
  EXPECT_EQ(HostMemoryCount().live_bytes, before);
  // The run that was under way ends as if nothing had been.
  for (absl::StatusOr<bool> more = true; *more;) {
    more = (*other)->Advance();
    ASSERT_TRUE(more.ok()) << more.status();
  }
  EXPECT_EQ(pixels, expected.pixels);
}

TEST(EngineTest, ARunKeepsItsPlanWhileAnotherTakesTurnsWithIt) {
  const auto model = LoadDemo();
  Request plain = DemoRequest(*model), quantized = plain;
  quantized.plan.quantize = "nf4";
  quantized.plan.offload = "leaf";
  const std::vector<float> expected[] = {Render(*model, plain).pixels,
                                         Render(*model, quantized).pixels};
  EXPECT_NE(expected[0], expected[1]);
  std::vector<float> pixels[2];
  std::vector<std::unique_ptr<kino::engine::Run>> runs;
  for (int i = 0; i < 2; ++i) {
    RunOptions options;
    options.output.frames = [&pixels, i](const FloatFrames& frames) {
      pixels[i].insert(pixels[i].end(), frames.data,
                       frames.data + int64_t{3} * frames.num_frames * frames.height * frames.width);
      return absl::OkStatus();
    };
    auto run = model->Start(i == 0 ? plain : quantized, {}, std::move(options));
    ASSERT_TRUE(run.ok()) << run.status();
    runs.push_back(*std::move(run));
  }
  for (bool going[] = {true, true}; going[0] || going[1];) {
    for (int i = 0; i < 2; ++i) {
      if (!going[i]) continue;
      const absl::StatusOr<bool> more = runs[i]->Advance();
      ASSERT_TRUE(more.ok()) << more.status();
      going[i] = *more;
    }
  }
  EXPECT_EQ(pixels[0], expected[0]);
  EXPECT_EQ(pixels[1], expected[1]);
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

// Cancels the load at every place where it looks, here and there in the middle of the many weights.
void CancelLoads(const ModelOptions& options, const std::function<void()>& after_each) {
  int cancelled = 0;
  for (int64_t look = 1;; look += look < 12 ? 1 : 29) {
    CancelToken cancel;
    cancel.CancelAtLook(look);
    HostWorkCounter counter;
    const auto model = TheEngine().Load(options, &cancel, &counter);
    if (model.ok()) break;
    ++cancelled;
    EXPECT_EQ(model.status().code(), absl::StatusCode::kCancelled) << model.status();
    EXPECT_EQ(counter.done(), static_cast<uint64_t>(look)) << "each look is one thing brought";
    after_each();
    if (::testing::Test::HasFailure()) break;
  }
  // Components, and weights of each.
  EXPECT_GT(cancelled, 12);
}

std::vector<ModelOptions> WaysToLoad() {
  std::vector<ModelOptions> ways(4, ModelOptions{.folder = kDemo});
  ways[1].plan.offload = "leaf";
  ways[1].plan.weights_home = "pageable";
  ways[2].plan.quantize = "nf4";
  ways[3].plan.quantize = "nf4";
  ways[3].plan.offload = "block:1";  // through a spill file
  return ways;
}

TEST(EngineTest, ACancelledLoadLeavesNothingAndTheNextOneWorks) {
  const std::vector<ModelOptions> ways = WaysToLoad();
  for (size_t i = 0; i < ways.size(); ++i) {
    SCOPED_TRACE(i);
    std::vector<float> expected;
    {
      const auto model = LoadDemo(ways[i]);
      expected = Render(*model, DemoRequest(*model)).pixels;
    }
    const int64_t before = HostMemoryCount().live_bytes;
    const int64_t weights_before = DeviceWeightCount().live_bytes;
    CancelLoads(ways[i], [&] {
      EXPECT_EQ(HostMemoryCount().live_bytes, before);
      EXPECT_EQ(DeviceWeightCount().live_bytes, weights_before);
    });
    const auto model = LoadDemo(ways[i]);
    EXPECT_EQ(Render(*model, DemoRequest(*model)).pixels, expected);
  }
}

TEST(EngineTest, ACancelledLoadHarmsNoModelThatSharesItsComponents) {
  const std::vector<ModelOptions> ways = WaysToLoad();
  const auto held = LoadDemo(ways[0]);
  const Request request = DemoRequest(*held);
  const std::vector<float> expected = Render(*held, request).pixels;
  int64_t text_encoder_bytes = 0;
  for (const ComponentDescription& component : held->description().components) {
    if (component.name != "text_encoder") continue;
    for (const WeightTensor& weight : component.weights) text_encoder_bytes += weight.elements * 4;
  }
  const int64_t weights_before = DeviceWeightCount().live_bytes;
  for (size_t i = 1; i < ways.size(); ++i) {
    SCOPED_TRACE(i);
    const auto cancel_halfway = [&] {
      CancelToken cancel;
      // One look at the beginning, one for each of three components, then one for each weight.
      cancel.CancelAtLook(7);
      EXPECT_EQ(TheEngine().Load(ways[i], &cancel).status().code(), absl::StatusCode::kCancelled);
    };
    cancel_halfway();
    // It was in the middle of the first component, of which nothing is held now.
    EXPECT_EQ(DeviceWeightCount().live_bytes, weights_before - text_encoder_bytes);
    EXPECT_EQ(Render(*held, request).pixels, expected) << "what was taken from it is brought again";
    // The same without the held model's own run in between.
    cancel_halfway();
    const auto other = LoadDemo(ways[i]);
    // No prompt whose encoding is known, so that the text encoder has to be there.
    Request fresh = request;
    fresh.prompt = absl::StrCat("a prompt after a cancelled load, ", i);
    const Rendered rendered = Render(*other, fresh);
    EXPECT_TRUE(rendered.status.ok()) << rendered.status;
    EXPECT_EQ(Render(*held, request).pixels, expected);
  }
}

// A plan that depends on the request has its weights brought by the run.
TEST(EngineTest, ARunThatBringsItsWeightsIsCancelledBetweenThem) {
  ModelOptions options{.folder = kDemo};
  options.plan.max_device_memory = int64_t{4} << 30;
  for (const int64_t look : {1, 2, 50, 100}) {
    const auto model = LoadDemo(options);
    const Request request = DemoRequest(*model);
    const int64_t before = HostMemoryCount().live_bytes;
    CancelToken cancel;
    cancel.CancelAtLook(look);
    RunOptions run_options{.output = {}, .cancel = &cancel, .tap = {}};
    run_options.output.frames = [](const FloatFrames&) { return absl::OkStatus(); };
    auto run = model->Start(request, {}, std::move(run_options));
    ASSERT_TRUE(run.ok()) << run.status();
    EXPECT_EQ((*run)->Advance().status().code(), absl::StatusCode::kCancelled) << look;
    EXPECT_EQ((*run)->pulse().counter, static_cast<uint64_t>(look));
    run->reset();
    EXPECT_LE(HostMemoryCount().live_bytes, before + (int64_t{40} << 20)) << look;
    EXPECT_TRUE(Render(*model, request).status.ok()) << look;
  }
}

TEST(EngineTest, ThePulseTellsStageStepsAndUsualSeconds) {
  const auto model = LoadDemo();
  RunOptions options;
  options.output.frames = [](const FloatFrames&) { return absl::OkStatus(); };
  auto run = model->Start(DemoRequest(*model, 9, 4), {}, std::move(options));
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ((*run)->pulse().stage, Stage::kEncodeText) << "before its first step";
  EXPECT_EQ((*run)->pulse().counter, 0u);
  ASSERT_TRUE(*(*run)->Advance());
  for (int step = 0; step < 3; ++step) {
    const RunPulse before = (*run)->pulse();
    EXPECT_EQ(before.stage, Stage::kDenoise);
    EXPECT_EQ(before.steps, step);
    EXPECT_EQ(before.step_seconds > 0, step > 0) << "of this stage none is known at its beginning";
    ASSERT_TRUE(*(*run)->Advance());
    // Every block of the transformer counts.
    EXPECT_GT((*run)->pulse().counter, before.counter + 1);
  }
  std::vector<double> steps = (*run)->result().step_seconds;
  std::sort(steps.begin(), steps.end());
  EXPECT_EQ((*run)->pulse().step_seconds, steps.at(1));
  ASSERT_TRUE(*(*run)->Advance());
  EXPECT_EQ((*run)->pulse().stage, Stage::kDecode);
  EXPECT_EQ((*run)->pulse().step_seconds, 0);
  while (true) {
    const auto more = (*run)->Advance();
    ASSERT_TRUE(more.ok()) << more.status();
    if (!*more) break;
  }
  for (const StageStats& stats : (*run)->result().stages) {
    if (stats.stage == Stage::kDenoise) {
      steps = (*run)->result().step_seconds;
      std::sort(steps.begin(), steps.end());
      EXPECT_EQ(stats.steps, static_cast<int>(steps.size()));
      EXPECT_EQ(stats.step_seconds, steps.at((steps.size() - 1) / 2));
    }
    EXPECT_EQ(stats.steps > 0, stats.step_seconds > 0);
  }
}

TEST(EngineTest, AHealthyDevicePassesItsCheckBesideAModel) {
  const auto model = LoadDemo();
  EXPECT_EQ(TheEngine().CheckDevice(), absl::OkStatus());
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

// What a run gives as an MP4, until its sink says `status` to the call `failing`.
struct Muxed {
  absl::Status status;
  std::string bytes;
  int calls = 0;
  double before_decode = 0, elapsed = 0;  // seconds
  RunResult result;
};

Muxed Mux(Model& model, const Request& request, int failing = -1, absl::Status status = {}) {
  Muxed muxed;
  std::atomic<bool> is_over = false;
  RunOptions options;
  options.output.mp4 = [&](std::string_view bytes) {
    EXPECT_FALSE(is_over) << "bytes behind the run's end";
    if (muxed.calls++ == failing) return status;
    muxed.bytes.append(bytes);
    return absl::OkStatus();
  };
  const auto start = std::chrono::steady_clock::now();
  auto run = model.Start(request, {}, std::move(options));
  muxed.status = run.status();
  if (!run.ok()) return muxed;
  for (bool more = true; more;) {
    const absl::StatusOr<bool> advanced = (*run)->Advance();
    muxed.status = advanced.status();
    more = advanced.ok() && *advanced;
  }
  is_over = true;
  muxed.elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!muxed.status.ok()) return muxed;
  muxed.result = (*run)->result();
  for (const StageStats& stage : muxed.result.stages) {
    if (stage.stage != Stage::kDecode && stage.stage != Stage::kMux)
      muxed.before_decode += stage.seconds;
  }
  return muxed;
}

TEST(EngineTest, AnMp4IsToldOfByItsFirstFragment) {
  const auto model = LoadDemo();
  const Muxed muxed = Mux(*model, DemoRequest(*model, 65));
  ASSERT_TRUE(muxed.status.ok()) << muxed.status;
  EXPECT_EQ(muxed.bytes.substr(4, 4), "ftyp");
  EXPECT_EQ(muxed.result.output_bytes, static_cast<int64_t>(muxed.bytes.size()));
  EXPECT_EQ(muxed.result.num_frames, 65);
  // The head leaves before the first step, and shows nothing.
  EXPECT_GE(muxed.result.first_chunk_seconds, muxed.before_decode);
  EXPECT_LE(muxed.result.first_chunk_seconds, muxed.elapsed);
}

TEST(EngineTest, AnMp4SinkThatFailsEndsTheRunAndIsCalledNoMore) {
  const auto model = LoadDemo();
  for (const int failing : {0, 1}) {
    const Muxed muxed =
        Mux(*model, DemoRequest(*model), failing, absl::ResourceExhaustedError("the disk is full"));
    EXPECT_TRUE(absl::IsResourceExhausted(muxed.status)) << muxed.status;
    EXPECT_EQ(muxed.calls, failing + 1);
  }
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
  EXPECT_EQ(TheEngine()
                .Load({.folder = kDemo, .dtype = *ComputeDTypes::Parse("attic=float32")}, nullptr)
                .status()
                .message(),
            "dtype: component 'attic', expected one of text_encoder, transformer, vae");
  ModelOptions unknown_offload{.folder = kDemo};
  unknown_offload.plan.offload = "sometimes";
  EXPECT_EQ(TheEngine().Load(unknown_offload, nullptr).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(TheEngine().Load({.folder = kDemo, .variant = "fp16"}, nullptr).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(EngineTest, TimeLeftIsOperationsOverTheRateThatWasMeasured) {
  // An engine of its own, on which nothing has run.
  const auto engine = *Engine::Create({.device = "cpu", .threads = 1});
  const auto model = *engine->Load({.folder = kDemo}, nullptr);
  const Request request = DemoRequest(*model);
  const auto estimate =
      Planner(model->description(), request, *engine->Profiles({.folder = kDemo}), {}).Estimate({});
  ASSERT_TRUE(estimate.ok()) << estimate.status();
  double denoise = 0, decode = 0;
  for (const StageEstimate& stage : estimate->stages) {
    if (stage.stage == Stage::kDenoise) denoise += stage.flops;
    if (stage.stage == Stage::kDecode) decode += stage.flops;
  }
  ASSERT_GT(denoise, 0);
  ASSERT_GT(decode, 0);
  for (const bool is_first : {true, false}) {
    RunOptions options;
    options.output.frames = [](const FloatFrames&) { return absl::OkStatus(); };
    auto run = model->Start(request, {}, options);
    ASSERT_TRUE(run.ok()) << run.status();
    ASSERT_TRUE(*(*run)->Advance());
    ASSERT_EQ((*run)->progress().stage, Stage::kDenoise);
    EXPECT_EQ((*run)->progress().eta_seconds.has_value(), !is_first)
        << "before its first step a run has the rate of those before it";
    ASSERT_TRUE(*(*run)->Advance());
    ASSERT_TRUE((*run)->progress().eta_seconds);
    if (is_first) {
      const double step = (*run)->result().step_seconds.at(0);
      EXPECT_NEAR(*(*run)->progress().eta_seconds,
                  step * (2 * denoise / 3 + decode) / (denoise / 3), 1e-9);
    }
    while (*(*run)->Advance()) {
    }
    EXPECT_EQ((*run)->progress().eta_seconds, 0);
  }
}

TEST(EngineTest, ThreadsAreTheUsableCoresUnlessTheyAreSaid) {
  TheEngine();
  ASSERT_TRUE(Engine::Create({.device = "cpu", .threads = 3}).ok());
  EXPECT_EQ(at::get_num_threads(), 3);
  const char* const before = getenv("OMP_NUM_THREADS");
  const std::string kept = before != nullptr ? before : "";
  unsetenv("OMP_NUM_THREADS");
  ASSERT_TRUE(Engine::Create({.device = "cpu"}).ok());
  EXPECT_EQ(at::get_num_threads(), UsableCores());
  setenv("OMP_NUM_THREADS", "5", 1);
  ASSERT_TRUE(Engine::Create({.device = "cpu"}).ok());
  EXPECT_EQ(at::get_num_threads(), 5);
  unsetenv("OMP_NUM_THREADS");
  if (before != nullptr) setenv("OMP_NUM_THREADS", kept.c_str(), 1);
  at::set_num_threads(1);
}

TEST(EngineTest, DeviceMemoryOfTheCpuIsWhatMayBeUsed) {
  EXPECT_EQ(TheEngine().device_memory_bytes(), UsableMemoryBytes());
}

}  // namespace
}  // namespace kino::engine
