// Residency and copies over a device that is as late and as disorderly as its fences allow.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/memory_counter.h"
#include "engine/memory/residency.h"
#include "engine/models/ltx/tokens.h"
#include "engine/models/ltx/transformer.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/simulated_device.h"
#include "tests/support/tiny_ltx.h"

namespace kino::engine {
namespace {

using ::kino::testing::kPaces;
using ::kino::testing::Pace;
using ::kino::testing::SimulatedDevice;
using ::kino::testing::TempDir;
using ::kino::testing::TinyLtx;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

at::Tensor Bytes(int64_t count, int64_t value) {
  return at::ones({count}, at::TensorOptions(at::kByte)).mul_(value);
}

class SimulatedDeviceTest : public ::testing::TestWithParam<Pace> {
 protected:
  SimulatedDevice device_{GetParam()};
  const std::unique_ptr<Transport> transport_ = device_.MakeTransport();
  at::Tensor memory_ = Bytes(1024, 1);
  const at::Tensor source_ = Bytes(1024, 7);
};

INSTANTIATE_TEST_SUITE_P(Paces, SimulatedDeviceTest, ::testing::ValuesIn(kPaces));

TEST_P(SimulatedDeviceTest, WorkInOrderPasses) {
  for (int i = 1; i < 4; ++i) {
    const auto copied =
        transport_->Copy(memory_, source_.fill_(i), transport_->ComputeFence().get());
    transport_->ComputeAfter(*copied);
    EXPECT_EQ(memory_.sum().item<int64_t>(), 1024 * i);
    transport_->WaitFor(*copied);
  }
}

TEST_P(SimulatedDeviceTest, SeesHostMemoryWrittenOrFreedUnderACopy) {
  at::Tensor source = transport_->AllocateHost(1024).fill_(7);
  const auto copy = [&] {
    auto copied = transport_->Copy(memory_, source, transport_->ComputeFence().get());
    transport_->ComputeAfter(*copied);
    return copied;
  };
  const auto first = copy();
  copy();  // the same once more is no write
  EXPECT_THAT(device_.TakeViolations(), IsEmpty());
  source.fill_(9);
  const auto second = copy();
  EXPECT_THAT(device_.TakeViolations(), ElementsAre(HasSubstr("host memory was written")));
  transport_->WaitFor(*first);
  transport_->WaitFor(*second);
  source.fill_(10);
  copy();
  EXPECT_THAT(device_.TakeViolations(), IsEmpty());
  source = at::Tensor();  // nothing waited for the last
  EXPECT_THAT(device_.TakeViolations(), ElementsAre(HasSubstr("host memory was freed")));
}

TEST_P(SimulatedDeviceTest, SeesACopyWithAnOlderFence) {
  const auto before = transport_->ComputeFence();
  memory_.add_(1);
  transport_->ComputeAfter(*transport_->Copy(memory_, source_, before.get()));
  EXPECT_THAT(device_.TakeViolations(), ElementsAre(HasSubstr("a copy of 1024 bytes")));
  transport_->ComputeAfter(*transport_->Copy(memory_, source_, nullptr));
  EXPECT_THAT(device_.TakeViolations(), ElementsAre(HasSubstr("with a fence behind none")));
}

// The memory was other work's, though nothing has used it as what it is now.
TEST_P(SimulatedDeviceTest, SeesACopyIntoNewMemoryWithoutAFence) {
  const at::Tensor made = at::empty({64}, at::TensorOptions(at::kByte));
  transport_->ComputeAfter(*transport_->Copy(made, source_.narrow(0, 0, 64), nullptr));
  EXPECT_THAT(device_.TakeViolations(), ElementsAre(HasSubstr("a copy of 64 bytes")));
}

TEST_P(SimulatedDeviceTest, SeesWorkThatDoesNotWait) {
  const auto fence = transport_->ComputeFence();
  const auto first =
      transport_->Copy(memory_.narrow(0, 0, 512), source_.narrow(0, 0, 512), fence.get());
  const auto second =
      transport_->Copy(memory_.narrow(0, 512, 512), source_.narrow(0, 512, 512), fence.get());
  transport_->ComputeAfter(*first);
  memory_.narrow(0, 0, 512).add_(1);
  EXPECT_THAT(device_.TakeViolations(), IsEmpty());
  memory_.narrow(0, 512, 512).add_(1);
  EXPECT_THAT(device_.TakeViolations(), Not(IsEmpty()));
  transport_->ComputeAfter(*second);
}

TEST_P(SimulatedDeviceTest, SeesMemoryFreedUnderACopy) {
  const auto copied = transport_->Copy(memory_, source_, transport_->ComputeFence().get());
  memory_ = at::Tensor();
  EXPECT_THAT(device_.TakeViolations(), ElementsAre(HasSubstr("freed under a copy")));
  transport_->ComputeAfter(*copied);
}

TEST(SimulatedDeviceLateTest, ReadsWhatIsCopiedWhenTheCopyIsDone) {
  SimulatedDevice device(Pace::kLate);
  const auto transport = device.MakeTransport();
  const at::Tensor memory = Bytes(16, 1), source = Bytes(16, 7);
  const auto copied = transport->Copy(memory, source, transport->ComputeFence().get());
  source.fill_(9);
  transport->ComputeAfter(*copied);
  EXPECT_TRUE(at::equal(memory, Bytes(16, 9)));
  transport->WaitFor(*copied);
  EXPECT_THAT(device.TakeViolations(), ElementsAre(HasSubstr("host memory was written")));
}

constexpr LatentGrid kGrid = {.frames = 2, .height = 2, .width = 3};

at::Tensor Random(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions());
}

WeightPlan PlanOf(const std::string& offload, WeightsHome home, int prefetch) {
  WeightPlan plan{.residency = *ResidencyPolicy::Parse(offload), .home = home};
  if (offload != "sequential") plan.residency.prefetch = prefetch;
  return plan;
}

uint64_t Seed() {
  static const uint64_t seed = [] {
    const char* const text = std::getenv("KINO_TEST_SEED");
    const uint64_t chosen = text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
    std::cout << "seed: KINO_TEST_SEED=" << chosen << "\n";
    return chosen;
  }();
  return seed;
}

class ResidencyDeviceTest : public ::testing::Test {
 protected:
  ResidencyDeviceTest() {
    at::set_num_threads(1);  // bit-identity is promised on one thread
    InstallMemoryCounter();
  }
  ~ResidencyDeviceTest() override { Residency::set_poison_released(false); }

  std::shared_ptr<LtxTransformer> Open(const TinyLtx& tiny) {
    tiny.Write(folder_);
    const auto files = ComponentFiles::Open(folder_.path(), "");
    const auto made = MakeComponent<LtxTransformer>(*files, at::kFloat, at::kCPU);
    EXPECT_TRUE(made.ok()) << made.status();
    return *made;
  }
  // Prepare and so many times Forward.
  static at::Tensor Run(const LtxTransformer& transformer, const TinyLtx& tiny, int steps) {
    const c10::InferenceMode inference;
    const auto prepared =
        transformer.Prepare(Random({1, 5, tiny.caption}, 8),
                            GridPositions(kGrid, 8.0 / 25, 32, at::kCPU), {1000, 600}, nullptr, {});
    const std::vector<const LtxTransformer::Prepared*> rows = {&prepared};
    at::Tensor latents = Random({1, 12, tiny.channels}, 9);
    for (int step = 0; step < steps; ++step)
      latents = transformer.Forward(rows, {{0, 12, step % 2}}, latents, {});
    return latents;
  }

  TempDir folder_;
};

TEST_F(ResidencyDeviceTest, EveryPolicyHomeAndDepthGivesTheSameBits) {
  const TinyLtx tiny{.layers = 5};
  const auto on_host = Open(tiny);
  on_host->residency().Configure(PlanOf("none", WeightsHome::kFile, 1));
  const at::Tensor expected = Run(*on_host, tiny, 3);
  for (const Pace pace : kPaces) {
    for (const bool poison : {false, true}) {
      Residency::set_poison_released(poison);
      SimulatedDevice device(pace, Seed());
      const auto transformer = Open(tiny);
      transformer->residency().set_transport(device.MakeTransport());
      transformer->residency().set_staging(std::make_shared<StagingSlabs>(int64_t{8} << 10));
      for (const WeightsHome home :
           {WeightsHome::kFile, WeightsHome::kPageable, WeightsHome::kPinned}) {
        for (const char* offload : {"model", "sequential", "leaf", "block:1", "block:2"}) {
          for (const int prefetch : {0, 1, 2, 8}) {
            transformer->residency().Configure(PlanOf(offload, home, prefetch));
            EXPECT_TRUE(at::equal(Run(*transformer, tiny, 3), expected))
                << "pace " << static_cast<int>(pace) << ", poison " << poison << ", " << offload
                << " from " << WeightsHomeName(home) << ", " << prefetch << " ahead";
            EXPECT_THAT(device.TakeViolations(), IsEmpty());
            transformer->residency().Leave();
          }
        }
      }
    }
  }
}

// Layers of one matrix each, of so many rows; the i-th holds i + 1 everywhere.
class Layers {
 public:
  Layers(const std::vector<int64_t>& rows, SimulatedDevice& device) : rows_(rows) {
    std::vector<kino::testing::FloatTensor> tensors;
    for (size_t i = 0; i < rows.size(); ++i) {
      kino::testing::FloatTensor& tensor = tensors.emplace_back();
      tensor.name = absl::StrCat("layers.", i, ".weight");
      tensor.shape = {rows[i], 16};
      tensor.values.assign(static_cast<size_t>(rows[i]) * 16, static_cast<float>(i) + 1);
    }
    folder_.Write("model.safetensors", kino::testing::SafetensorsOf(tensors));
    set_.emplace(*Checkpoint::Open(folder_.path(), ""), at::kFloat, at::kCPU);
    const WeightScope scope(*set_, set_->AddGroup("layers"));
    for (size_t i = 0; i < rows.size(); ++i)
      layers_.push_back(scope.Get(tensors[i].name, {rows[i], 16}));
    EXPECT_TRUE(set_->Finish().ok()) << set_->Finish();
    residency_.emplace(*set_);
    residency_->set_transport(device.MakeTransport());
  }
  size_t size() const { return layers_.size(); }
  Residency& residency() { return *residency_; }
  PinnedTensor Get(size_t i) const { return layers_[i].get(); }
  static bool IsWhole(size_t i, const at::Tensor& weight) {
    return weight.eq(static_cast<double>(i) + 1).all().item<bool>();
  }

 private:
  const std::vector<int64_t> rows_;
  TempDir folder_;
  std::optional<WeightSet> set_;
  std::vector<WeightRef> layers_;
  std::optional<Residency> residency_;
};

// One of them is larger than the others, so that of slots with sizes of their own only one would
// fit it: an odd number of layers would have it wait for the one before it, each time round.
TEST_F(ResidencyDeviceTest, NoUnitOfALoopWaitsForItsSlot) {
  for (const std::vector<int64_t>& rows :
       std::vector<std::vector<int64_t>>{{40, 100, 40},
                                         {40, 100, 40, 40},
                                         {100, 40, 90, 7, 40},
                                         {7, 40, 40, 90, 33, 100},
                                         {1, 2, 3, 4, 5, 6, 7}}) {
    SimulatedDevice device(Pace::kRandom, Seed());
    Layers layers(rows, device);
    layers.residency().Configure(PlanOf("leaf", WeightsHome::kFile, 1));
    for (int round = 0; round < 6; ++round) {
      const int64_t before = layers.residency().misses();
      for (size_t i = 0; i < layers.size(); ++i) {
        EXPECT_TRUE(Layers::IsWhole(i, layers.Get(i))) << i << " of " << rows.size();
      }
      // Nothing is ahead of the first.
      EXPECT_EQ(layers.residency().misses() - before, round == 0 ? 1 : 0)
          << rows.size() << " layers, round " << round;
    }
  }
}

// Whichever of some layers is in use, the others come and go beside it.
TEST_F(ResidencyDeviceTest, AUnitInUseKeepsItsSlot) {
  for (const Pace pace : kPaces) {
    SimulatedDevice device(pace, Seed());
    Layers layers({7, 40, 100, 40}, device);
    layers.residency().Configure(PlanOf("leaf", WeightsHome::kFile, 1));
    for (size_t held = 0; held < layers.size(); ++held) {
      const PinnedTensor in_use = layers.Get(held);
      for (size_t step = 1; step < 3 * layers.size(); ++step) {
        const size_t other = (held + step) % layers.size();
        EXPECT_TRUE(Layers::IsWhole(other, layers.Get(other))) << other << " beside " << held;
        EXPECT_TRUE(Layers::IsWhole(held, in_use)) << held << " beside " << other;
      }
    }
  }
}

TEST_F(ResidencyDeviceTest, StagingSlabsAreMadeOnceForAllStages) {
  const TinyLtx tiny;
  SimulatedDevice device(Pace::kRandom, Seed());
  const auto transformer = Open(tiny);
  transformer->residency().set_transport(device.MakeTransport());
  transformer->residency().set_staging(std::make_shared<StagingSlabs>(int64_t{64} << 10));
  transformer->residency().Configure(PlanOf("block:1", WeightsHome::kFile, 1));
  for (int stage = 0; stage < 4; ++stage) {
    Run(*transformer, tiny, 2);
    transformer->residency().Leave();
  }
  EXPECT_EQ(device.host_allocations(), 2);
}

// Nothing says when the slots are free, so nothing else may be brought there.
TEST_F(ResidencyDeviceTest, AUseThatGetsNoFenceIsAnError) {
  const TinyLtx tiny;
  SimulatedDevice device(Pace::kRandom, Seed());
  const auto transformer = Open(tiny);
  transformer->residency().set_transport(device.MakeTransport());
  transformer->residency().Configure(PlanOf("block:1", WeightsHome::kFile, 1));
  const at::Tensor expected = Run(*transformer, tiny, 3);
  for (int n = 1; n < 6; ++n) {
    device.FailComputeFence(n);
    EXPECT_THROW(Run(*transformer, tiny, 3), c10::Error) << n;
    transformer->residency().Leave();
    EXPECT_TRUE(at::equal(Run(*transformer, tiny, 3), expected)) << n;
  }
}

TEST_F(ResidencyDeviceTest, ACopyThatFailsIsAnErrorAndLeavesNothingBehind) {
  const TinyLtx tiny;
  for (const WeightsHome home : {WeightsHome::kFile, WeightsHome::kPinned}) {
    SimulatedDevice device(Pace::kRandom, Seed());
    const auto transformer = Open(tiny);
    transformer->residency().set_transport(device.MakeTransport());
    transformer->residency().Configure(PlanOf("block:1", home, 1));
    const at::Tensor expected = Run(*transformer, tiny, 3);
    // The next copy is of a unit that is asked for.
    transformer->residency().Leave();
    device.FailCopy(1);
    EXPECT_THROW(Run(*transformer, tiny, 3), c10::Error);
    EXPECT_TRUE(at::equal(Run(*transformer, tiny, 3), expected));
    transformer->residency().Leave();
    EXPECT_EQ(DeviceWeightCount().live_bytes, 0);
  }
}

}  // namespace
}  // namespace kino::engine
