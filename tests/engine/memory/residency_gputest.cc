// Residency on a CUDA device: what only a device can tell. Skipped where there is none.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/core/memory_counter.h"
#include "engine/models/ltx/tokens.h"
#include "engine/models/ltx/transformer.h"
#include "tests/support/cuda_test.h"
#include "tests/support/tiny_ltx.h"

namespace kino::engine {
namespace {

using ::kino::testing::TempDir;
using ::kino::testing::TinyLtx;

constexpr LatentGrid kGrid = {.frames = 2, .height = 2, .width = 3};

class CudaResidencyTest : public ::kino::testing::CudaTest<> {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (!opened()) return;
    tiny_.Write(folder_);
    const auto files = ComponentFiles::Open(folder_.path(), "");
    const auto made = MakeComponent<LtxTransformer>(*files, at::kBFloat16, device_);
    ASSERT_TRUE(made.ok()) << made.status();
    transformer_ = *made;
  }
  at::Tensor Random(at::IntArrayRef shape, uint64_t seed) const {
    return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions())
        .to(device_);
  }
  at::Tensor Step(const std::string& offload, WeightsHome home, QuantScheme quantize) {
    const c10::InferenceMode inference;
    transformer_->residency().Configure(
        {.residency = *ResidencyPolicy::Parse(offload), .home = home, .quantize = quantize});
    const auto prepared = transformer_->Prepare(Random({1, 5, tiny_.caption}, 8),
                                                GridPositions(kGrid, 8.0 / 25, 32, device_),
                                                {1000, 600}, nullptr, RunContext{});
    const std::vector<const LtxTransformer::Prepared*> rows = {&prepared};
    at::Tensor out;
    // Steps behind each other, so that copies run into slots that queued kernels still read.
    for (int step = 0; step < 5; ++step) {
      out = transformer_->Forward(rows, {{0, 12, step % 2}}, Random({1, 12, tiny_.channels}, 9),
                                  RunContext{});
    }
    return out.to(at::kCPU);
  }

  TinyLtx tiny_{.heads = 8, .head_dim = 64, .layers = 8, .channels = 128, .caption = 96};
  TempDir folder_;
  std::shared_ptr<LtxTransformer> transformer_;
};

TEST_F(CudaResidencyTest, EveryPolicyHomeAndFormGivesTheSameBits) {
  for (const QuantScheme scheme :
       {QuantScheme::kNone, QuantScheme::kNf4, QuantScheme::kInt8Wo, QuantScheme::kQ8_0}) {
    const at::Tensor expected = Step("none", WeightsHome::kFile, scheme);
    for (const WeightsHome home :
         {WeightsHome::kFile, WeightsHome::kPageable, WeightsHome::kPinned}) {
      for (const char* offload : {"model", "sequential", "leaf", "block:1", "block:3"}) {
        EXPECT_TRUE(at::equal(Step(offload, home, scheme), expected))
            << QuantSchemeName(scheme) << ", " << offload << " from " << WeightsHomeName(home);
      }
    }
  }
}

TEST_F(CudaResidencyTest, BlocksHoldNoMoreThanTheirSlots) {
  transformer_->residency().Configure(
      {.residency = *ResidencyPolicy::Parse("block:1"), .home = WeightsHome::kPinned});
  const std::vector<int64_t> units = transformer_->residency().UnitBytes();
  ResetDeviceWeightPeak();
  Step("block:1", WeightsHome::kPinned, QuantScheme::kNone);
  EXPECT_LE(DeviceWeightCount().peak_bytes, units[0] + units[1]);
  transformer_->residency().Leave();
  EXPECT_EQ(DeviceWeightCount().live_bytes, 0);
}

}  // namespace
}  // namespace kino::engine
