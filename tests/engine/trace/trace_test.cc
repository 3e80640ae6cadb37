#include "engine/core/trace.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/sum.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/core/status_bridge.h"
#include "engine/ops/attention.h"
#include "engine/ops/conv3d.h"
#include "engine/ops/linear.h"
#include "engine/quant/int8_matmul.h"
#include "engine/trace/tracer.h"

namespace kino::engine {
namespace {

using ::testing::HasSubstr;

constexpr ComputeTarget kGpu = {.is_gpu = true};
const auto kMeta = at::TensorOptions().device(at::kMeta).dtype(at::kFloat);

TEST(Trace, CountsWhatLivesAndTheMostAtATime) {
  const Trace trace({});
  at::Tensor a = at::empty({1000}, kMeta);
  EXPECT_EQ(trace.counts().device_peak, 4000);
  {
    const at::Tensor b = at::empty({2000}, kMeta);
    // A view holds nothing of its own.
    const at::Tensor view = b.narrow(0, 10, 5);
    EXPECT_EQ(trace.counts().device_peak, 12000);
  }
  const at::Tensor c = at::empty({500}, kMeta);
  EXPECT_EQ(trace.counts().device_peak, 12000);
  a.reset();
}

TEST(Trace, ResetKeepsWhatLives) {
  Trace trace({});
  const at::Tensor kept = at::empty({1000}, kMeta);
  at::empty({5000}, kMeta);
  EXPECT_EQ(trace.counts().device_peak, 24000);
  trace.Reset();
  EXPECT_EQ(trace.counts().device_peak, 4000);
}

TEST(Trace, TensorsOutliveIt) {
  at::Tensor kept;
  {
    const Trace trace({});
    kept = at::empty({1000}, kMeta);
  }
  kept.reset();
  const Trace next({});
  EXPECT_EQ(next.counts().device_peak, 0);
  // Made outside of a trace: not counted.
  EXPECT_EQ(Trace::Current(), &next);
}

TEST(Trace, AGpuHasAHostBesideIt) {
  const Trace trace(kGpu);
  const at::Tensor on_device = at::empty({1000}, kMeta);
  // CUDA's allocator hands out multiples of 512 bytes.
  EXPECT_EQ(trace.counts().device_peak, 4096);
  const at::Tensor on_host = ToHost(on_device, at::kFloat);
  EXPECT_TRUE(on_host.is_meta());
  EXPECT_EQ(trace.counts().device_peak, 4096);
  EXPECT_EQ(trace.counts().host_peak, 4000);
}

TEST(Trace, OnACpuTheHostIsTheDevice) {
  const Trace trace({});
  const at::Tensor x = at::empty({1000}, kMeta);
  EXPECT_TRUE(ToHost(x, at::kFloat).is_same(x));
  EXPECT_EQ(trace.counts().device_peak, 4000);
}

TEST(Trace, WithoutOneMetaTensorsRunNowhere) {
  const at::Tensor x = at::empty({1}, kMeta);
  EXPECT_FALSE(RunsOnCpu(x));
  EXPECT_FALSE(RunsOnGpu(x));
  const Trace trace(kGpu);
  EXPECT_TRUE(RunsOnGpu(x));
  EXPECT_FALSE(RunsOnCpu(x));
  EXPECT_TRUE(RunsOnCpu(at::empty({1})));
}

TEST(Trace, FloatsStandInWhereTheCpuHasNoBFloat16) {
  const auto bfloat16 = kMeta.dtype(at::kBFloat16);
  const at::Tensor x = at::empty({8, 64}, bfloat16), weight = at::empty({32, 64}, bfloat16);
  {
    const Trace trace({.cpu = {.avx = true, .bfloat16 = true}});
    EXPECT_EQ(Linear(x, weight, {}).scalar_type(), at::kBFloat16);
    EXPECT_EQ(trace.counts().device_peak, 8 * 32 * 2);
  }
  const Trace trace({.cpu = {.avx = true}});
  EXPECT_EQ(Linear(x, weight, {}).scalar_type(), at::kBFloat16);
  // Both inputs and the output in float32, then the output once more.
  EXPECT_EQ(trace.counts().device_peak, (8 * 64 + 32 * 64 + 8 * 32) * 4 + 8 * 32 * 2);
}

TEST(Trace, AttentionCountsItsProducts) {
  const Trace trace(kGpu);
  const auto options = kMeta.dtype(at::kBFloat16);
  const at::Tensor q = at::empty({2, 10, 64}, options), k = at::empty({2, 7, 64}, options);
  EXPECT_EQ(Attention(q, k, k, /*heads=*/4).sizes(), q.sizes());
  EXPECT_EQ(trace.counts().attention_flops, 4.0 * 2 * 10 * 7 * 64);
}

TEST(Trace, AGpuTakesMoreTokensOfADynamicLayerAtOnce) {
  const at::Tensor x = at::empty({1}, kMeta);
  {
    const Trace trace(kGpu);
    EXPECT_EQ(DynamicRowsPerChunk(x), 16384);
  }
  const Trace trace({});
  EXPECT_EQ(DynamicRowsPerChunk(x), 1024);
}

// A network may not make the host wait: what it does so with cannot be traced.
TEST(Trace, AHostSynchronisationIsAnError) {
  const Trace trace(kGpu);
  const at::Tensor x = at::empty({4}, kMeta);
  const absl::Status item = RunGuarded([&] {
    (void)x.sum().item<float>();
    return absl::OkStatus();
  });
  EXPECT_THAT(std::string(item.message()), HasSubstr("Meta"));
  const absl::Status copy = RunGuarded([&] {
    (void)x.to(at::kCPU);
    return absl::OkStatus();
  });
  EXPECT_FALSE(copy.ok());
}

TEST(Trace, AConvolutionOfAnotherOrderIsAnError) {
  const Trace trace(kGpu);
  const at::Tensor weight = at::empty({8, 16, 3, 3, 3}, kMeta), bias = at::empty({8}, kMeta);
  const at::Tensor frames = at::empty({5, 6, 4, 16}, kMeta);
  EXPECT_EQ(Conv3d(frames, weight, bias, {}).sizes(), at::IntArrayRef({3, 6, 4, 8}));
  EXPECT_EQ(trace.counts().convolution_flops, 2.0 * 3 * 6 * 4 * 8 * 16 * 27);
  const at::Tensor channels_first = at::empty({5, 16, 6, 4}, kMeta).permute({0, 2, 3, 1});
  EXPECT_THROW(Conv3d(channels_first, weight, bias, {}), c10::Error);
}

// Forward and the decode loop of the demo model, for a GPU, in every dtype of computation.
class TracerTest : public ::testing::TestWithParam<DType> {
 protected:
  TracerTest() {
    auto model = DescribeModel(std::string(KINO_SOURCE_DIR) + "/models/demo");
    EXPECT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }
  Request EffectiveRequest(int frames = 17, double guidance = 3) const {
    Request request;
    request.prompt = "a red star";
    request.height = 128;
    request.width = 128;
    request.num_frames = frames;
    request.num_inference_steps = 7;
    request.guidance_scale = guidance;
    ResolvedRequest resolved = ResolveRequest(model_, request, 1);
    EXPECT_TRUE(resolved.violations.empty());
    return resolved.request;
  }
  std::vector<PhaseNeed> Trace(const Request& request, bool on_gpu) const {
    const auto tracer = MakeTracer(
        {.family = model_.family, .folder = model_.folder, .dtype = GetParam(), .on_gpu = on_gpu});
    const auto profile = tracer->Profile(request, {{}});
    EXPECT_TRUE(profile.ok()) << profile.status();
    return profile.ok() ? *profile->Phases({}) : std::vector<PhaseNeed>();
  }

  ModelDescription model_;
};

TEST_P(TracerTest, NothingWaitsForTheGpu) {
  const std::vector<PhaseNeed> phases = Trace(EffectiveRequest(), /*on_gpu=*/true);
  std::vector<Stage> stages;
  for (const PhaseNeed& phase : phases) {
    if (stages.empty() || stages.back() != phase.stage) stages.push_back(phase.stage);
    if (phase.component.empty()) continue;  // ids of tokens are the host's
    EXPECT_GT(phase.device_activations, 0) << StageName(phase.stage) << " " << phase.part;
  }
  EXPECT_EQ(stages, (std::vector<Stage>{Stage::kEncodeText, Stage::kDenoise, Stage::kDecode}));
}

TEST_P(TracerTest, EveryStepIsCountedAndPreparationOnce) {
  const std::vector<PhaseNeed> phases = Trace(EffectiveRequest(), /*on_gpu=*/true);
  int denoise = 0;
  for (const PhaseNeed& phase : phases) {
    if (phase.stage != Stage::kDenoise) continue;
    ++denoise;
    if (phase.component.empty()) {
      EXPECT_DOUBLE_EQ(phase.passes, 1);
    } else if (phase.part.empty()) {
      EXPECT_DOUBLE_EQ(phase.passes, 7);
      EXPECT_GT(phase.attention_flops, 0);
    } else {
      EXPECT_EQ(phase.part, "prepare");
      // Once for each prompt, but for what prompts share.
      EXPECT_GT(phase.passes, 1);
      EXPECT_LE(phase.passes, 2);
    }
  }
  EXPECT_EQ(denoise, 3);
}

// A stage's weights come to the device with the first of them that is read: what is over by then
// does not live beside them.
TEST_P(TracerTest, WhatComesBeforeAStagesWeightsIsAPhaseOfItsOwn) {
  Request request = EffectiveRequest();
  request.task = Task::kVideoToVideo;
  request.conditions = {{.kind = ConditionKind::kVideo,
                         .size = VideoSize{.height = 128, .width = 128, .num_frames = 17}}};
  const std::vector<PhaseNeed> phases = Trace(ResolveRequest(model_, request, 1).request, false);
  std::vector<Stage> stages;
  for (size_t i = 0; i < phases.size(); ++i) {
    const bool is_first = i == 0 || phases[i - 1].stage != phases[i].stage;
    EXPECT_EQ(phases[i].component.empty(), is_first) << StageName(phases[i].stage) << " " << i;
    if (is_first) stages.push_back(phases[i].stage);
    if (phases[i].stage != Stage::kEncodeMedia || !is_first) continue;
    // The video's bytes are made floats before the VAE sees them, a run of frames at a time.
    EXPECT_GE(phases[i].device_activations, 128 * 128 * 3 * (1 + 4));
    EXPECT_EQ(phases[i].convolution_flops, 0);
    EXPECT_DOUBLE_EQ(phases[i].passes, 1);
  }
  EXPECT_EQ(stages, (std::vector<Stage>{Stage::kEncodeText, Stage::kEncodeMedia, Stage::kDenoise,
                                        Stage::kDecode}));
}

// A kernel has its launch whatever its size, and only a GPU has any.
TEST_P(TracerTest, CountsTheKernelsOfAGpu) {
  const auto sum = [](const std::vector<PhaseNeed>& phases, Stage stage) {
    KernelCounts kernels;
    for (const PhaseNeed& phase : phases) {
      if (phase.stage == stage) kernels.Add(phase.kernels, phase.passes);
    }
    return kernels;
  };
  const std::vector<PhaseNeed> few = Trace(EffectiveRequest(17), /*on_gpu=*/true);
  const std::vector<PhaseNeed> many = Trace(EffectiveRequest(33), /*on_gpu=*/true);
  const std::vector<PhaseNeed> cpu = Trace(EffectiveRequest(17), /*on_gpu=*/false);
  for (const Stage stage : {Stage::kEncodeText, Stage::kDenoise, Stage::kDecode}) {
    SCOPED_TRACE(StageName(stage));
    EXPECT_GT(sum(few, stage).launches, 0);
    EXPECT_GT(sum(few, stage).bytes_read, sum(few, stage).bytes_written);
    EXPECT_GT(sum(few, stage).roofline_seconds, 0);
    EXPECT_EQ(sum(cpu, stage).launches, 0);
  }
  EXPECT_NEAR(sum(few, Stage::kDenoise).launches, sum(many, Stage::kDenoise).launches, 1e-6);
  EXPECT_GT(sum(many, Stage::kDenoise).bytes_written, sum(few, Stage::kDenoise).bytes_written);
}

TEST_P(TracerTest, MoreFramesComputeMore) {
  const auto flops = [&](int frames) {
    double sum = 0;
    for (const PhaseNeed& phase : Trace(EffectiveRequest(frames), /*on_gpu=*/false))
      sum += phase.passes * phase.convolution_flops;
    return sum;
  };
  const double few = flops(17), many = flops(33);
  EXPECT_GT(many, 1.7 * few);
  EXPECT_LT(many, 2.1 * few);
}

INSTANTIATE_TEST_SUITE_P(DTypes, TracerTest,
                         ::testing::Values(DType::kF32, DType::kBF16, DType::kF16),
                         [](const auto& of) { return std::string(DTypeName(of.param)); });

}  // namespace
}  // namespace kino::engine
