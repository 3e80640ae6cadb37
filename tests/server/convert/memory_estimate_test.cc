#include "server/convert/memory_estimate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "server/convert/request.h"

namespace kino::convert {
namespace {

engine::ModelDescription Demo() {
  auto model = engine::DescribeModel(std::string(KINO_SOURCE_DIR) + "/models/demo");
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

engine::Request SmallRequest(const engine::ModelDescription& model, const engine::Plan& plan) {
  engine::Request request;
  request.prompt = "";
  request.height = 64;
  request.width = 64;
  request.num_frames = 9;
  request.plan = plan;
  const engine::ResolvedRequest resolved = engine::ResolveRequest(model, request, 0);
  EXPECT_TRUE(resolved.violations.empty());
  return resolved.request;
}

// bfloat16 on a GPU, else float32, as traced.
Placement On(const engine::ModelDescription& model, const std::string& device,
             const engine::DeviceSpec& spec = {}) {
  const engine::DType dtype = spec.is_gpu ? engine::DType::kBF16 : engine::DType::kF32;
  return {.device = device,
          .dtype = dtype,
          .spec = spec,
          .profiles = engine::ProfilesOf(model, dtype, spec.is_gpu)};
}

int ChosenCount(const v1::MemoryEstimate& memory) {
  int count = 0;
  for (const v1::PlanEstimate& plan : memory.plans()) count += plan.chosen() ? 1 : 0;
  return count;
}

TEST(MemoryEstimate, EveryFieldOfAPlanSurvives) {
  engine::PlanEstimate estimate;
  estimate.name = "leaf";
  estimate.plan.offload = "leaf";
  estimate.stages.push_back(
      {.stage = engine::Stage::kDecode,
       .weights = 1,
       .activations = 2,
       .workspace = 3,
       .host = 4,
       .flops = 5e12,
       .kernels = {
           .launches = 7, .bytes_read = 8e9, .bytes_written = 9e9, .roofline_seconds = 0.25}});
  estimate.stages.push_back({.stage = engine::Stage::kEncodeText});
  estimate.peak_device = 6;
  estimate.peak_host = 4;
  estimate.slowdown = 1.25;
  estimate.time_class = engine::TimeClass::kMore;
  estimate.transfer_hidden = 0.5;
  const v1::PlanEstimate proto = FromEngine(estimate);
  EXPECT_EQ(proto.name(), "leaf");
  EXPECT_EQ(proto.plan().offload(), "leaf");
  ASSERT_EQ(proto.stages_size(), 2);
  EXPECT_EQ(proto.stages(0).stage(), v1::DECODE);
  EXPECT_EQ(proto.stages(0).weights_bytes(), 1);
  EXPECT_EQ(proto.stages(0).activations_bytes(), 2);
  EXPECT_EQ(proto.stages(0).workspace_bytes(), 3);
  EXPECT_EQ(proto.stages(0).host_bytes(), 4);
  EXPECT_EQ(proto.stages(0).flops(), 5e12);
  EXPECT_EQ(proto.stages(0).kernels().launches(), 7);
  EXPECT_EQ(proto.stages(0).kernels().bytes_read(), 8e9);
  EXPECT_EQ(proto.stages(0).kernels().bytes_written(), 9e9);
  EXPECT_EQ(proto.stages(0).kernels().roofline_seconds(), 0.25);
  // On a CPU there are none.
  EXPECT_FALSE(proto.stages(1).has_kernels());
  EXPECT_EQ(proto.peak_device_bytes(), 6);
  EXPECT_EQ(proto.peak_host_bytes(), 4);
  EXPECT_EQ(proto.slowdown(), 1.25);
  EXPECT_EQ(proto.time_class(), "<= 1.5x");
  EXPECT_EQ(proto.transfer_hidden(), 0.5);
  EXPECT_TRUE(proto.lossless() && proto.fits());
  EXPECT_FALSE(proto.chosen());
}

TEST(MemoryEstimate, AnExplicitPlanIsTheChosenOne) {
  const engine::ModelDescription model = Demo();
  engine::Plan plan;
  plan.offload = "block:1,vae=none";
  plan.chunk_feed_forward = 7;
  const auto memory = EstimateMemory(model, SmallRequest(model, plan), On(model, "cpu"));
  ASSERT_TRUE(memory.ok()) << memory.status();
  EXPECT_EQ(ChosenCount(*memory), 1);
  for (const v1::PlanEstimate& one : memory->plans()) {
    if (!one.chosen()) continue;
    EXPECT_EQ(one.plan().offload(), "block:1,vae=none");
    EXPECT_EQ(one.plan().chunk_feed_forward(), 7);
  }
  EXPECT_EQ(memory->device_memory_bytes(), 0);
  EXPECT_EQ(memory->refusal(), "");
}

TEST(MemoryEstimate, TheRequestsLimitLowersTheDevices) {
  const engine::ModelDescription model = Demo();
  engine::Plan plan;
  plan.mode = "auto";
  plan.max_device_memory = 1 << 20;
  const auto memory =
      EstimateMemory(model, SmallRequest(model, plan), On(model, "cpu", {.device_bytes = 1 << 30}));
  ASSERT_TRUE(memory.ok()) << memory.status();
  EXPECT_EQ(memory->device_memory_bytes(), 1 << 20);
  EXPECT_EQ(ChosenCount(*memory), 0);
  EXPECT_THAT(memory->refusal(), ::testing::HasSubstr("1"));
  for (const v1::PlanEstimate& one : memory->plans()) EXPECT_FALSE(one.fits()) << one.name();
}

TEST(MemoryEstimate, PinnedMemoryWithoutAGpuIsARefusal) {
  const engine::ModelDescription model = Demo();
  engine::Plan plan;
  plan.offload = "leaf";
  plan.weights_home = "pinned";
  const auto cpu = EstimateMemory(model, SmallRequest(model, plan), On(model, "cpu"));
  ASSERT_TRUE(cpu.ok()) << cpu.status();
  EXPECT_THAT(cpu->refusal(), ::testing::HasSubstr("pinned"));
  const auto gpu =
      EstimateMemory(model, SmallRequest(model, plan), On(model, "cuda:0", {.is_gpu = true}));
  ASSERT_TRUE(gpu.ok()) << gpu.status();
  EXPECT_EQ(gpu->refusal(), "");
  EXPECT_EQ(gpu->dtype(), "bfloat16");
  // Of the type that is computed with, on each.
  EXPECT_EQ(gpu->weights_bytes(), model.WeightBytes(engine::DType::kBF16));
  EXPECT_EQ(cpu->weights_bytes(), model.WeightBytes(engine::DType::kF32));
}

}  // namespace
}  // namespace kino::convert
