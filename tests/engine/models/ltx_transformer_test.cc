#include "engine/models/ltx/tokens.h"
#include "engine/models/ltx/transformer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "absl/strings/match.h"
#include "engine/core/status_bridge.h"
#include "tests/support/tiny_ltx.h"

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

using ::kino::testing::FloatTensor;
using ::kino::testing::TempDir;
using ::kino::testing::TinyLtx;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr LatentGrid kGrid = {.frames = 2, .height = 2, .width = 3};
const std::vector<float> kTimesteps = {1000, 600, 0};

at::Tensor Random(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions());
}

class LtxTransformerTest : public ::testing::Test {
 protected:
  LtxTransformerTest() {
    // Bit-identity is promised on one thread.
    at::set_num_threads(1);
    tiny_.Write(folder_);
  }

  std::shared_ptr<const LtxTransformer> Load(const std::string& offload) {
    const auto files = ComponentFiles::Open(folder_.path(), "");
    EXPECT_TRUE(files.ok()) << files.status();
    const auto loaded = MakeComponent<LtxTransformer>(*files, at::kFloat, at::kCPU);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    (*loaded)->residency().Configure({.residency = *ResidencyPolicy::Parse(offload)});
    return *loaded;
  }

  // One guided step at timestep index 1, the first frame clean.
  at::Tensor Step(const LtxTransformer& transformer, const RunContext& context = {}) {
    const c10::InferenceMode inference;
    const auto negative = transformer.Prepare(Random({1, 3, tiny_.caption}, 7),
                                              GridPositions(kGrid, 8.0 / 25, 32, at::kCPU),
                                              kTimesteps, nullptr, context);
    const auto positive = transformer.Prepare(Random({1, 5, tiny_.caption}, 8),
                                              GridPositions(kGrid, 8.0 / 25, 32, at::kCPU),
                                              kTimesteps, &negative, context);
    const std::vector<const LtxTransformer::Prepared*> rows = {&negative, &positive};
    return transformer.Forward(rows, {{0, 6, 2}, {6, 12, 1}},
                               Random({1, 12, tiny_.channels}, 9).expand({2, -1, -1}), context);
  }

  TinyLtx tiny_;
  TempDir folder_;
};

TEST_F(LtxTransformerTest, ForwardTouchesNoWeightThatPrepareOwns) {
  const auto transformer = Load("none");
  const c10::InferenceMode inference;
  const auto prepared =
      transformer->Prepare(Random({1, 3, tiny_.caption}, 7),
                           GridPositions(kGrid, 8.0 / 25, 32, at::kCPU), kTimesteps, nullptr, {});
  ReadNames audit;
  transformer->set_audit(&audit);
  const std::vector<const LtxTransformer::Prepared*> rows = {&prepared};
  transformer->Forward(rows, {{0, 12, 0}}, Random({1, 12, tiny_.channels}, 9), {});
  transformer->set_audit(nullptr);

  size_t owned_by_forward = 0;
  for (const auto& group : transformer->weights().groups()) {
    for (const Weight* weight : group->weights()) {
      const bool touched = audit.names().contains(weight->name);
      if (transformer->OwnedByPrepare(group->name())) {
        EXPECT_FALSE(touched) << weight->name;
      } else {
        // ... and every other weight is read: nothing is kept on the device for nothing.
        EXPECT_TRUE(touched) << weight->name;
        ++owned_by_forward;
      }
    }
  }
  EXPECT_EQ(audit.names().size(), owned_by_forward);
  EXPECT_TRUE(audit.names().contains("transformer_blocks.2.attn2.to_q.weight"));
  EXPECT_FALSE(audit.names().contains("transformer_blocks.2.attn2.to_k.weight"));
}

TEST_F(LtxTransformerTest, PrepareTouchesItsOwnWeightsOnly) {
  const auto transformer = Load("none");
  const c10::InferenceMode inference;
  ReadNames audit;
  transformer->set_audit(&audit);
  transformer->Prepare(Random({1, 3, tiny_.caption}, 7),
                       GridPositions(kGrid, 8.0 / 25, 32, at::kCPU), kTimesteps, nullptr, {});
  transformer->set_audit(nullptr);
  for (const auto& group : transformer->weights().groups()) {
    for (const Weight* weight : group->weights()) {
      EXPECT_EQ(audit.names().contains(weight->name), transformer->OwnedByPrepare(group->name()))
          << weight->name;
    }
  }
}

TEST_F(LtxTransformerTest, EveryPolicyGivesTheSameBits) {
  const at::Tensor expected = Step(*Load("none"));
  // Whatever is used without being pinned comes out as NaN.
  Residency::set_poison_released(true);
  for (const char* offload :
       {"model", "sequential", "leaf", "block:1", "block:2", "block:3", "block:9"}) {
    const auto transformer = Load(offload);
    // Twice: the second pass finds the slots as the first left them.
    EXPECT_TRUE(at::equal(Step(*transformer), expected)) << offload;
    EXPECT_TRUE(at::equal(Step(*transformer), expected)) << offload << ", second pass";
  }
  Residency::set_poison_released(false);
}

TEST_F(LtxTransformerTest, BlockOffloadLeavesBlocksOffTheDevice) {
  const auto transformer = Load("block:1");
  Step(*transformer);
  int resident_blocks = 0;
  for (const auto& group : transformer->weights().groups()) {
    if (!absl::StartsWith(group->name(), "transformer_blocks.")) continue;
    resident_blocks += group->weights().front()->value.empty() ? 0 : 1;
  }
  EXPECT_LE(resident_blocks, 2);  // prefetch + 1
}

TEST_F(LtxTransformerTest, WeightsAtOddOffsetsAreReadAlike) {
  const at::Tensor expected = Step(*Load("none"));
  std::string bytes = ::kino::testing::SafetensorsOf(tiny_.Tensors());
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  // Blanks behind the header are JSON too; each shifts the tensors by a byte.
  for (int shift = 0; shift < 2; ++shift) {
    bytes.insert(8 + header, " ");
    ++header;
    std::memcpy(bytes.data(), &header, 8);
    folder_.Write("diffusion_pytorch_model.safetensors", bytes);
    EXPECT_TRUE(at::equal(Step(*Load("none")), expected)) << shift;
    EXPECT_TRUE(at::equal(Step(*Load("block:1")), expected)) << shift;
  }
}

TEST_F(LtxTransformerTest, RowsDoNotSeeEachOther) {
  const auto transformer = Load("none");
  const at::Tensor both = Step(*transformer);
  const c10::InferenceMode inference;
  const auto positive =
      transformer->Prepare(Random({1, 5, tiny_.caption}, 8),
                           GridPositions(kGrid, 8.0 / 25, 32, at::kCPU), kTimesteps, nullptr, {});
  const std::vector<const LtxTransformer::Prepared*> rows = {&positive};
  const at::Tensor alone =
      transformer->Forward(rows, {{0, 6, 2}, {6, 12, 1}}, Random({1, 12, tiny_.channels}, 9), {});
  // Batched and single matrix products differ in the last bits.
  EXPECT_LT((both.narrow(0, 1, 1) - alone).abs().max().item<float>(), 1e-5);
  EXPECT_GT((both.narrow(0, 0, 1) - alone).abs().max().item<float>(), 1e-3);
}

// The 12 tokens of both rows: five, five and two at a time.
TEST_F(LtxTransformerTest, AFeedForwardInPiecesIsOneFeedForward) {
  const auto transformer = Load("none");
  const at::Tensor whole = Step(*transformer);
  for (const int tokens : {5, 1, 11, 12, 100}) {
    const at::Tensor pieces = Step(*transformer, {.chunk_feed_forward = tokens});
    // Matrix products of fewer rows differ in the last bits.
    EXPECT_LT((pieces - whole).abs().max().item<float>(), 1e-5) << tokens;
  }
}

TEST_F(LtxTransformerTest, CancelStopsBetweenBlocks) {
  const auto transformer = Load("none");
  CancelToken cancel;
  HostWorkCounter counter;
  const RunContext context{.cancel = &cancel, .counter = &counter};
  Step(*transformer, context);
  const uint64_t units = counter.done();
  EXPECT_EQ(units, 3u * static_cast<uint64_t>(
                            tiny_.layers));  // two Prepares and a Forward, block by block
  cancel.Cancel();
  const absl::Status status = RunGuarded([&] {
    Step(*transformer, context);
    return absl::OkStatus();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  EXPECT_EQ(counter.done(), units + 1);
}

TEST_F(LtxTransformerTest, MissingMisshapenAndUnexpectedWeightsAreReportedTogether) {
  std::vector<FloatTensor> tensors = tiny_.Tensors();
  std::erase_if(tensors, [](const FloatTensor& t) {
    return t.name == "transformer_blocks.1.attn1.to_q.bias";
  });
  for (FloatTensor& tensor : tensors) {
    if (tensor.name == "proj_in.bias")
      tensor.shape = {1, static_cast<int64_t>(tensor.values.size())};
  }
  tensors.push_back({"transformer_blocks.3.extra", {1}, {1}});
  tiny_.Write(folder_, tensors);
  const absl::Status status =
      MakeComponent<LtxTransformer>(*ComponentFiles::Open(folder_.path(), ""), at::kFloat, at::kCPU)
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const std::string message(status.message());
  EXPECT_THAT(message, HasSubstr("1 missing: transformer_blocks.1.attn1.to_q.bias"));
  EXPECT_THAT(message, HasSubstr("1 misshapen: proj_in.bias is [1, 32], expected [32]"));
  EXPECT_THAT(message, HasSubstr("1 unexpected: transformer_blocks.3.extra"));
  EXPECT_THAT(message, Not(HasSubstr("fp8")));
}

TEST_F(LtxTransformerTest, Fp8WithScalesIsCalledByItsName) {
  for (const auto& [extra, says] :
       {std::pair("transformer_blocks.0.attn1.to_q.scale_weight", "scaled_fp8"),
        {"scaled_fp8", "scaled_fp8"},
        {"transformer_blocks.0.attn1.to_q.weight_scale", "(weight_scale)"}}) {
    std::vector<FloatTensor> tensors = tiny_.Tensors();
    tensors.push_back({extra, {1}, {1}});
    tiny_.Write(folder_, tensors);
    const absl::Status status = MakeComponent<LtxTransformer>(
                                    *ComponentFiles::Open(folder_.path(), ""), at::kFloat, at::kCPU)
                                    .status();
    EXPECT_THAT(std::string(status.message()), HasSubstr("fp8 weights with scales"));
    EXPECT_THAT(std::string(status.message()), HasSubstr(says));
  }
}

TEST_F(LtxTransformerTest, OptionsNoCheckpointUsesAreRefusedByName) {
  for (const char* option :
       {R"("patch_size":2)", R"("qk_norm":"layer_norm")", R"("activation_fn":"geglu")",
        R"("norm_elementwise_affine":true)", R"("cross_attention_dim":7)"}) {
    std::string config = tiny_.Config();
    const std::string key = std::string(option).substr(1, std::string(option).find('"', 1) - 1);
    const size_t at = config.find("\"" + key + "\"");
    if (at != std::string::npos) config.erase(at, config.find(',', at) + 1 - at);
    config.insert(1, std::string(option) + ",");
    const absl::Status status =
        LtxTransformerConfig::FromJson(nlohmann::json::parse(config), "config.json").status();
    EXPECT_FALSE(status.ok()) << option;
    EXPECT_THAT(std::string(status.message()), HasSubstr(key)) << option;
  }
}

}  // namespace
}  // namespace kino::engine
