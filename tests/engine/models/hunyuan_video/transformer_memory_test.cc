// What HunyuanVideo's transformers hold, and when: memory plans, Prepare's part, traces.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>

#include <algorithm>

#include "engine/core/json.h"
#include "engine/core/trace.h"
#include "engine/trace/meta_kernels.h"
#include "tests/engine/models/hunyuan_video/transformer_cases.h"

namespace kino::engine {
namespace {

// The names of the weights that were read.
class ReadNames final : public WeightAudit {
 public:
  void Touch(const Weight& weight) override { names_.insert(weight.name); }
  const absl::flat_hash_set<std::string>& names() const { return names_; }

 private:
  absl::flat_hash_set<std::string> names_;
};

WeightPlan Plan(const char* offload) { return {.residency = *ResidencyPolicy::Parse(offload)}; }

int64_t Elements(const Weight& weight) {
  int64_t count = 1;
  for (const int64_t extent : weight.shape) count *= extent;
  return count;
}

class HunyuanMemoryTest : public ::testing::TestWithParam<std::pair<const char*, const char*>> {
 protected:
  // Bit-identity is promised on one thread.
  HunyuanMemoryTest() { at::set_num_threads(1); }

  const std::string model_ = GetParam().first;
  const HunyuanCase case_{model_ + "/cases.safetensors", GetParam().second};
};

TEST_P(HunyuanMemoryTest, ForwardAndPrepareHaveTheirOwnWeights) {
  const auto transformer = LoadHunyuan(model_);
  const c10::InferenceMode inference;
  ReadNames of_prepare, of_forward;
  transformer->set_audit(&of_prepare);
  const auto prepared = case_.Prepare(*transformer);
  transformer->set_audit(&of_forward);
  case_.Steps(*transformer, prepared);
  transformer->set_audit(nullptr);
  for (const auto& group : transformer->weights().groups()) {
    const bool is_prepares = group->part() == "prepare";
    for (const Weight* weight : group->weights()) {
      // ... and every one is read: nothing is kept for nothing.
      EXPECT_EQ(of_prepare.names().contains(weight->name), is_prepares) << weight->name;
      EXPECT_EQ(of_forward.names().contains(weight->name), !is_prepares) << weight->name;
    }
  }
  EXPECT_TRUE(of_prepare.names().contains("single_transformer_blocks.2.norm.linear.weight"));
  EXPECT_TRUE(of_forward.names().contains("single_transformer_blocks.2.proj_out.weight"));
}

TEST_P(HunyuanMemoryTest, EveryLosslessPlanGivesTheSameBits) {
  const at::Tensor expected = case_.Run(*LoadHunyuan(model_));
  // Whatever is used without being pinned comes out as NaN.
  Residency::set_poison_released(true);
  for (const char* offload :
       {"model", "sequential", "leaf", "block:1", "block:2", "block:3", "block:9"}) {
    for (const WeightsHome home : {WeightsHome::kFile, WeightsHome::kPageable}) {
      WeightPlan plan = Plan(offload);
      plan.home = home;
      const auto transformer = LoadHunyuan(model_, at::kFloat, plan);
      // Twice: the second run finds the slots as the first left them.
      EXPECT_TRUE(at::equal(case_.Run(*transformer), expected)) << offload;
      EXPECT_TRUE(at::equal(case_.Run(*transformer), expected)) << offload << ", second run";
    }
  }
  Residency::set_poison_released(false);
}

TEST_P(HunyuanMemoryTest, BlocksAndPreparesPartLeaveTheDevice) {
  const auto transformer = LoadHunyuan(model_, at::kFloat, Plan("block:1"));
  const auto on_device = [&](const std::string& part) {
    return std::count_if(transformer->weights().groups().begin(),
                         transformer->weights().groups().end(), [&](const auto& group) {
                           return group->part() == part && !group->weights().front()->value.empty();
                         });
  };
  const c10::InferenceMode inference;
  const auto prepared = case_.Prepare(*transformer);
  EXPECT_LE(on_device("prepare") + on_device(""), 2);  // prefetch + 1
  case_.Steps(*transformer, prepared);
  EXPECT_LE(on_device("prepare") + on_device(""), 2);
  EXPECT_GE(on_device(""), 1);
}

INSTANTIATE_TEST_SUITE_P(Models, HunyuanMemoryTest,
                         ::testing::Values(std::pair("t2v", "two"),
                                           std::pair("token_replace", "two"),
                                           std::pair("framepack", "next")),
                         [](const auto& pair) { return std::string(pair.param.first); });

// What is held in another form moves as it is held.
TEST(HunyuanLossyPlanTest, OffloadOfQuantizedWeightsGivesTheSameBits) {
  at::set_num_threads(1);
  const HunyuanCase one("wide/cases.safetensors", "one");
  for (const QuantScheme scheme : {QuantScheme::kNf4, QuantScheme::kInt8Wo}) {
    WeightPlan plan;
    plan.quantize = scheme;
    const at::Tensor resident = one.Run(*LoadHunyuan("wide", at::kFloat, plan));
    EXPECT_GT(MaxError(resident, one.Get("expected")), 1e-4);
    EXPECT_LT((resident - one.Get("expected")).norm().item<double>(),
              0.3 * one.Get("expected").norm().item<double>());
    plan.residency = *ResidencyPolicy::Parse("leaf");
    EXPECT_TRUE(at::equal(one.Run(*LoadHunyuan("wide", at::kFloat, plan)), resident));
  }
}

TEST(HunyuanLossyPlanTest, CastingLeavesAloneWhatDiffusersLeavesAlone) {
  const auto json = ReadJsonFile(HunyuanFixtures() + "/framepack/cast.json");
  ASSERT_TRUE(json.ok()) << json.status();
  const auto names = json->at("names").get<std::vector<std::string>>();
  const absl::flat_hash_set<std::string> theirs(names.begin(), names.end());
  EXPECT_TRUE(theirs.contains("single_transformer_blocks.0.proj_out.weight"));
  EXPECT_FALSE(theirs.contains("clean_x_embedder.proj.weight"));
  const auto transformer = LoadHunyuan("framepack");
  for (const auto& weight : transformer->weights().weights()) {
    EXPECT_EQ(transformer->weights().MayCast(*weight), theirs.contains(weight->name))
        << weight->name;
  }
}

// The published model on meta tensors.
class HunyuanTraceTest : public ::testing::Test {
 protected:
  static constexpr int64_t kText = 256, kWidth = 3072, kBlocks = 60;
  // 720 x 1280, in latents.
  static HunyuanVideoGrid Grid(int64_t frames) {
    return {.frames = frames, .height = 90, .width = 160};
  }
  static int64_t Tokens(const HunyuanVideoGrid& grid) { return grid.count() / 4; }

  std::shared_ptr<HunyuanVideoTransformer> Load(c10::ScalarType dtype) {
    InstallMetaKernels();
    const auto files = ComponentFiles::OpenOriginal(
        HunyuanFixtures() + "/published/t2v.safetensors", "", FindHunyuanVideoTransformer);
    EXPECT_TRUE(files.ok()) << files.status();
    auto made = MakeComponent<HunyuanVideoTransformer>(*files, dtype, at::kMeta);
    EXPECT_TRUE(made.ok()) << made.status();
    (*made)->weights().HoldEmpty();
    return *std::move(made);
  }

  // One step, of `rows` prompts.
  TraceCounts Step(const HunyuanVideoTransformer& transformer, const ComputeTarget& target,
                   int64_t frames, int64_t rows = 1) {
    const c10::InferenceMode inference;
    const auto options = at::TensorOptions().device(at::kMeta).dtype(transformer.dtype());
    const HunyuanVideoGrid grid = Grid(frames);
    Trace trace(target);
    std::vector<HunyuanVideoText> texts;
    for (int64_t row = 0; row < rows; ++row) {
      texts.push_back({.tokens = at::empty({1, kText, 4096}, options),
                       .pooled = at::empty({1, 768}, options),
                       .image = {}});
    }
    const auto prepared = transformer.Prepare(texts, grid, {1000, 500}, kGuidance, {});
    trace.Reset();
    transformer.Forward(prepared, 0,
                        at::empty({rows, 16, frames, grid.height, grid.width}, options), {});
    return trace.counts();
  }
};

TEST_F(HunyuanTraceTest, AQuarterOfTheWeightsIsPreparesAlone) {
  const auto transformer = Load(at::kBFloat16);
  double prepares = 0, all = 0;
  for (const auto& weight : transformer->weights().weights()) {
    const auto count = static_cast<double>(Elements(*weight));
    all += count;
    if (weight->group->part() == "prepare") prepares += count;
  }
  EXPECT_NEAR(all, 12.82e9, 0.01e9);
  EXPECT_GT(prepares / all, 0.26);
}

// 129 frames of 720 x 1280. No product of queries with keys is held: that of one head alone would
// be 28 GB.
TEST_F(HunyuanTraceTest, APeakIsLinearInTokensOnAGpu) {
  const auto transformer = Load(at::kBFloat16);
  const TraceCounts whole = Step(*transformer, {.is_gpu = true}, 33);
  const double tokens = static_cast<double>(Tokens(Grid(33)) + kText);
  EXPECT_EQ(tokens, 118800.0 + 256.0);
  EXPECT_NEAR(whole.attention_flops / (kBlocks * 4.0 * tokens * tokens * kWidth), 1, 1e-9);
  // A token's share of the linear layers: 240 squares of the width in blocks of two streams, 480 in
  // blocks of one, and the first and last layer.
  EXPECT_NEAR(whole.linear_flops / (2.0 * tokens * 720 * kWidth * kWidth), 1, 1e-3);
  // Tokens, normed ones, the inner width beside what attention saw: eight widths.
  EXPECT_LT(static_cast<double>(whole.device_peak), 8.2 * tokens * kWidth * 2);
  const TraceCounts half = Step(*transformer, {.is_gpu = true}, 17);
  EXPECT_LT(static_cast<double>(whole.device_peak),
            static_cast<double>(half.device_peak) * 33 / 17 * 1.01);
  // A second prompt costs what the first did.
  const TraceCounts two = Step(*transformer, {.is_gpu = true}, 17, 2);
  EXPECT_LT(static_cast<double>(two.device_peak), static_cast<double>(half.device_peak) * 2.05);
}

TEST_F(HunyuanTraceTest, APeakIsLinearInTokensOnACpu) {
  const auto transformer = Load(at::kFloat);
  const ComputeTarget cpu = {.cpu = {.avx = true}, .threads = 4};
  const TraceCounts whole = Step(*transformer, cpu, 33);
  const double tokens = static_cast<double>(Tokens(Grid(33)) + kText);
  EXPECT_LT(static_cast<double>(whole.device_peak), 8.2 * tokens * kWidth * 4);
  const TraceCounts half = Step(*transformer, cpu, 17);
  EXPECT_LT(static_cast<double>(whole.device_peak),
            static_cast<double>(half.device_peak) * 33 / 17 * 1.01);
}

}  // namespace
}  // namespace kino::engine
