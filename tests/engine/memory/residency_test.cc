#include "engine/memory/residency.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <numeric>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/core/memory_counter.h"
#include "engine/core/status_bridge.h"
#include "engine/models/ltx/tokens.h"
#include "engine/models/ltx/transformer.h"
#include "tests/support/tiny_ltx.h"

namespace kino::engine {
namespace {

using ::kino::testing::TempDir;
using ::kino::testing::TinyLtx;
using ::testing::HasSubstr;

constexpr LatentGrid kGrid = {.frames = 2, .height = 2, .width = 3};

at::Tensor Random(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions());
}

WeightPlan PlanOf(const std::string& offload, WeightsHome home = WeightsHome::kFile,
                  QuantScheme quantize = QuantScheme::kNone) {
  return {.residency = *ResidencyPolicy::Parse(offload), .home = home, .quantize = quantize};
}

// A transformer as its weights are moved; a step runs Prepare and Forward.
class ResidencyTest : public ::testing::TestWithParam<TinyLtx> {
 protected:
  ResidencyTest() {
    at::set_num_threads(1);  // bit-identity is promised on one thread
    InstallMemoryCounter();
    GetParam().Write(folder_);
    transformer_ = Open();
  }
  ~ResidencyTest() override { Residency::set_poison_released(false); }

  std::shared_ptr<LtxTransformer> Open(c10::ScalarType dtype = at::kFloat) {
    const auto files = ComponentFiles::Open(folder_.path(), "");
    const auto made = MakeComponent<LtxTransformer>(*files, dtype, at::kCPU);
    EXPECT_TRUE(made.ok()) << made.status();
    return *made;
  }
  at::Tensor Step(const LtxTransformer& transformer) {
    const c10::InferenceMode inference;
    const TinyLtx& tiny = GetParam();
    const auto prepared = transformer.Prepare(Random({1, 5, tiny.caption}, 8),
                                              GridPositions(kGrid, 8.0 / 25, 32, at::kCPU),
                                              {1000, 600}, nullptr, RunContext{});
    const std::vector<const LtxTransformer::Prepared*> rows = {&prepared};
    return transformer.Forward(rows, {{0, 12, 1}}, Random({1, 12, tiny.channels}, 9), RunContext{});
  }
  at::Tensor Step(const WeightPlan& plan) {
    transformer_->residency().Configure(plan);
    return Step(*transformer_);
  }
  // Most bytes of weights on the device during a step under `plan`.
  int64_t PeakWeights(const WeightPlan& plan) {
    transformer_->residency().Configure(plan);
    ResetDeviceWeightPeak();
    Step(*transformer_);
    const int64_t peak = DeviceWeightCount().peak_bytes;
    transformer_->residency().Leave();
    return peak;
  }
  // Bytes by layer (a name without its last part) or by block, largest first.
  std::vector<int64_t> Bytes(bool by_block) const {
    std::map<std::string, int64_t> sums;
    for (const auto& weight : transformer_->weights().weights()) {
      std::string key(weight->leaf());
      if (by_block) {
        const bool is_prepare = absl::StrContains(key, "attn2.to_k") ||
                                absl::StrContains(key, "attn2.to_v") ||
                                absl::StrContains(key, "attn2.norm_k");
        const size_t start = std::string("transformer_blocks.").size();
        if (absl::StartsWith(key, "transformer_blocks.")) {
          key = absl::StrCat(is_prepare ? "prepare" : "block",
                             key.substr(start, key.find('.', start) - start));
        } else if (key == "proj_in") {
          key = "block0";
        } else if (key == "proj_out" || key.empty()) {
          key = absl::StrCat("block", GetParam().layers - 1);
        } else {
          key = "prepare";
        }
      }
      sums[key] += weight->entry->bytes;
    }
    std::vector<int64_t> bytes;
    for (const auto& [key, sum] : sums) bytes.push_back(sum);
    std::sort(bytes.rbegin(), bytes.rend());
    return bytes;
  }

  TempDir folder_;
  std::shared_ptr<LtxTransformer> transformer_;
};

INSTANTIATE_TEST_SUITE_P(
    Sizes, ResidencyTest,
    ::testing::Values(TinyLtx{},
                      TinyLtx{
                          .heads = 8, .head_dim = 32, .layers = 5, .channels = 128, .caption = 96}),
    [](const auto& tested) { return tested.param.heads == 2 ? "Tiny" : "MidSize"; });

TEST_P(ResidencyTest, EveryPolicyAndHomeGivesTheSameBits) {
  const at::Tensor expected = Step(PlanOf("none"));
  // Whatever is used without being pinned comes out as NaN.
  Residency::set_poison_released(true);
  for (const WeightsHome home : {WeightsHome::kFile, WeightsHome::kPageable}) {
    for (const char* offload : {"none", "model", "sequential", "leaf", "block:1", "block:2"}) {
      EXPECT_TRUE(at::equal(Step(PlanOf(offload, home)), expected))
          << offload << " from " << WeightsHomeName(home);
    }
  }
}

TEST_P(ResidencyTest, PrefetchOfAnyDepthGivesTheSameBits) {
  const at::Tensor expected = Step(PlanOf("none"));
  for (const char* offload : {"leaf", "block:1"}) {
    for (const int depth : {0, 1, 2, 3, 8}) {
      WeightPlan plan = PlanOf(offload);
      plan.residency.prefetch = depth;
      EXPECT_TRUE(at::equal(Step(plan), expected)) << offload << ", " << depth << " ahead";
      EXPECT_TRUE(at::equal(Step(plan), expected)) << offload << ", " << depth << " ahead, again";
    }
  }
}

TEST_P(ResidencyTest, ACopyThroughStagingSlabsGivesTheSameBits) {
  const auto by_hand = Open();
  by_hand->residency().Configure(PlanOf("none"));
  const at::Tensor expected = Step(*by_hand);
  Residency::set_poison_released(true);
  for (const char* offload : {"leaf", "block:2", "model"}) {
    // What a device does that cannot read the file.
    const auto staged = Open();
    staged->residency().set_transport(CreateCpuTransport(/*with_staging=*/true));
    staged->residency().Configure(PlanOf(offload));
    EXPECT_TRUE(at::equal(Step(*staged), expected)) << offload;
  }
}

TEST_P(ResidencyTest, LeafHoldsNoMoreThanTheTwoLargestLeaves) {
  const std::vector<int64_t> leaves = Bytes(/*by_block=*/false);
  EXPECT_LE(PeakWeights(PlanOf("leaf")), leaves[0] + leaves[1]);
  EXPECT_LE(PeakWeights(PlanOf("sequential")), leaves[0]);
}

TEST_P(ResidencyTest, BlocksHoldNoMoreThanPrefetchAndOneGroups) {
  const std::vector<int64_t> groups = Bytes(/*by_block=*/true);
  for (const int prefetch : {0, 1, 2}) {
    WeightPlan plan = PlanOf("block:1");
    plan.residency.prefetch = prefetch;
    // Tensors start at multiples of 256 bytes, which small ones do not fill.
    const int64_t padding = 256 * 20 * (prefetch + 1);
    EXPECT_LE(PeakWeights(plan),
              std::accumulate(groups.begin(), groups.begin() + prefetch + 1, padding))
        << prefetch << " ahead";
  }
}

TEST_P(ResidencyTest, ResidentWeightsInTheFileTakeNoMemory) {
  EXPECT_EQ(PeakWeights(PlanOf("none")), 0);
  const int64_t all = transformer_->weights().checkpoint().bytes();
  EXPECT_EQ(PeakWeights(PlanOf("none", WeightsHome::kPageable)), all);
  transformer_->residency().Configure(PlanOf("none"));
  EXPECT_EQ(DeviceWeightCount().live_bytes, 0);
}

TEST_P(ResidencyTest, LeaveGivesEverythingBack) {
  transformer_->residency().Configure(PlanOf("block:1"));
  const int64_t before = HostMemoryCount().live_bytes;
  for (int pass = 0; pass < 3; ++pass) {
    Step(*transformer_);
    EXPECT_GT(DeviceWeightCount().live_bytes, 0);
    transformer_->residency().Leave();
    EXPECT_EQ(DeviceWeightCount().live_bytes, 0);
    EXPECT_EQ(HostMemoryCount().live_bytes, before);
  }
}

TEST_P(ResidencyTest, ThePlanChangesWithoutTheFile) {
  const at::Tensor expected = Step(PlanOf("none"));
  std::filesystem::remove_all(folder_.path());
  for (const char* offload : {"leaf", "none", "block:1", "model"}) {
    EXPECT_TRUE(at::equal(Step(PlanOf(offload)), expected)) << offload;
    EXPECT_TRUE(at::equal(Step(PlanOf(offload, WeightsHome::kPageable)), expected)) << offload;
  }
}

TEST_P(ResidencyTest, QuantizedWeightsGoThroughEveryPolicyAlike) {
  for (const QuantScheme scheme : {QuantScheme::kNf4Dq, QuantScheme::kInt8Wo, QuantScheme::kQ8_0}) {
    const at::Tensor expected = Step(PlanOf("none", WeightsHome::kFile, scheme));
    EXPECT_FALSE(at::equal(expected, Step(PlanOf("none")))) << QuantSchemeName(scheme);
    Residency::set_poison_released(true);
    for (const WeightsHome home : {WeightsHome::kFile, WeightsHome::kPageable}) {
      for (const char* offload : {"leaf", "block:1", "model", "none"}) {
        EXPECT_TRUE(at::equal(Step(PlanOf(offload, home, scheme)), expected))
            << QuantSchemeName(scheme) << ", " << offload << " from " << WeightsHomeName(home);
      }
    }
    Residency::set_poison_released(false);
  }
}

TEST_P(ResidencyTest, CastWeightsGoThroughEveryPolicyAlike) {
  const auto transformer = Open(at::kBFloat16);
  for (const DType storage : {DType::kF8E4M3, DType::kF8E5M2}) {
    WeightPlan plan = PlanOf("none");
    plan.storage_dtype = storage;
    transformer->residency().Configure(plan);
    const at::Tensor expected = Step(*transformer);
    const int64_t resident = DeviceWeightCount().live_bytes;
    EXPECT_LT(resident, transformer->weights().checkpoint().bytes() / 2);  // float32 in the file
    for (const char* offload : {"leaf", "block:1", "model"}) {
      plan.residency = *ResidencyPolicy::Parse(offload);
      transformer->residency().Configure(plan);
      EXPECT_TRUE(at::equal(Step(*transformer), expected)) << DTypeName(storage) << ", " << offload;
    }
  }
}

TEST_P(ResidencyTest, CastingLeavesAloneWhatDiffusersDoes) {
  WeightPlan plan = PlanOf("none");
  plan.storage_dtype = DType::kF8E4M3;
  transformer_->residency().Configure(plan);
  for (const auto& weight : transformer_->weights().weights()) {
    const std::string leaf(weight->leaf());
    const bool is_layer = !absl::StrContains(leaf, "norm") && leaf != "proj_in" &&
                          leaf != "proj_out" && !absl::EndsWith(weight->name, "scale_shift_table");
    EXPECT_EQ(weight->stored_dtype == c10::ScalarType::Float8_e4m3fn, is_layer) << weight->name;
  }
}

TEST_P(ResidencyTest, SkippedLayersStayUnquantized) {
  WeightPlan plan = PlanOf("none", WeightsHome::kFile, QuantScheme::kNf4);
  plan.quantize_skip = {"ff.net", "proj_out"};
  transformer_->residency().Configure(plan);
  for (const auto& weight : transformer_->weights().weights()) {
    const std::string leaf(weight->leaf());
    EXPECT_EQ(weight->format != nullptr,
              weight->is_matrix && !absl::StrContains(leaf, "ff.net") && leaf != "proj_out")
        << weight->name;
  }
}

TEST_P(ResidencyTest, PinnedMemoryNeedsAGpu) {
  try {
    transformer_->residency().Configure(PlanOf("block:1", WeightsHome::kPinned));
    FAIL() << "configured";
  } catch (const StatusError& error) {
    EXPECT_EQ(error.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(error.status().message()), HasSubstr("needs a GPU"));
  }
}

TEST_P(ResidencyTest, RunningOutOfMemoryLeavesNothingBehind) {
  const at::Tensor expected = Step(PlanOf("leaf"));
  transformer_->residency().Leave();
  const int64_t before = HostMemoryCount().live_bytes;
  SetHostMemoryLimit(before + Bytes(true)[0] / 2);
  transformer_->residency().Configure(PlanOf("block:2"));
  // Some of the slots fit; the next try must not take those for all of them.
  EXPECT_THROW(Step(*transformer_), c10::OutOfMemoryError);
  EXPECT_THROW(Step(*transformer_), c10::OutOfMemoryError);
  SetHostMemoryLimit(0);
  EXPECT_TRUE(at::equal(Step(*transformer_), expected));
  transformer_->residency().Leave();
  SetHostMemoryLimit(before + Bytes(true)[0] / 2);
  EXPECT_THROW(transformer_->residency().Configure(PlanOf("none", WeightsHome::kPageable)),
               c10::OutOfMemoryError);
  SetHostMemoryLimit(0);
  transformer_->residency().Leave();
  EXPECT_EQ(HostMemoryCount().live_bytes, before);
  EXPECT_EQ(DeviceWeightCount().live_bytes, 0);
  EXPECT_TRUE(at::equal(Step(PlanOf("leaf")), expected));
}

}  // namespace
}  // namespace kino::engine
