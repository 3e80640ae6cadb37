#include "engine/memory/copy_engine.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/clone.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "tests/support/simulated_device.h"

namespace kino::engine {
namespace {

using ::kino::testing::kPaces;
using ::kino::testing::Pace;
using ::kino::testing::SimulatedDevice;

// Pieces as a slab has them: larger ones first, each at a multiple of 256 bytes.
struct Slab {
  explicit Slab(const std::vector<int64_t>& piece_bytes, int64_t first_value) {
    for (const int64_t size : piece_bytes) {
      const int64_t offset = bytes;
      pieces.push_back({.offset = offset, .bytes = size, .fill = [=](const at::Tensor& host) {
                          host.copy_(at::arange(first_value + offset, first_value + offset + size)
                                         .remainder(251)
                                         .to(at::kByte));
                        }});
      end = offset + size;
      bytes = (end + 255) / 256 * 256;
    }
    to = at::zeros({end}, at::TensorOptions(at::kByte));
  }
  // Every piece is on the device as its fill makes it.
  void ExpectCopied() const {
    for (const SlabPiece& piece : pieces) {
      const at::Tensor expected = at::empty({piece.bytes}, at::TensorOptions(at::kByte));
      piece.fill(expected);
      EXPECT_TRUE(at::equal(to.narrow(0, piece.offset, piece.bytes), expected))
          << "the piece at " << piece.offset;
    }
  }

  std::vector<SlabPiece> pieces;
  int64_t bytes = 0, end = 0;
  at::Tensor to;
};

constexpr int64_t kStagingBytes = 1000;

class StagedCopies : public ::testing::TestWithParam<Pace> {
 protected:
  SlabCopy CopyOf(const Slab& slab) {
    return {.to = slab.to,
            .slab = {},
            .pieces = &slab.pieces,
            .after = engine_.transport().ComputeFence()};
  }

  SimulatedDevice device_{GetParam()};
  const std::shared_ptr<StagingSlabs> slabs_ = std::make_shared<StagingSlabs>(kStagingBytes);
  CopyEngine engine_{device_.MakeTransport(), slabs_};
};

INSTANTIATE_TEST_SUITE_P(Paces, StagedCopies, ::testing::ValuesIn(kPaces));

// Six copies through two staging slabs, the last of one byte: what the slab held before must be on
// the device before it is filled again.
TEST_P(StagedCopies, ASlabOfManyStagingSlabsArrivesWhole) {
  const Slab slab({3000, 1000, 900, 700, 300, 232, 200, 40, 30, 20, 1}, 7);
  engine_.Wait(engine_.Start(CopyOf(slab)));
  slab.ExpectCopied();
  // One piece that is larger than a staging slab, and as many of the others as one holds.
  EXPECT_EQ(device_.copies(), (std::vector<int64_t>{3000, 1000, 900, 700, 768 + 200, 768 + 1}));
  engine_.Drain();
}

TEST_P(StagedCopies, SlabsBehindEachOtherShareTheStagingSlabs) {
  std::vector<Slab> slabs;
  for (int i = 0; i < 5; ++i) {
    // An odd number of copies, so that each begins with the other staging slab.
    slabs.push_back(Slab({900, 800, 700}, 31 * i));
  }
  std::vector<CopyEngine::Ticket> tickets;
  for (const Slab& slab : slabs) tickets.push_back(engine_.Start(CopyOf(slab)));
  for (const CopyEngine::Ticket ticket : tickets) engine_.Wait(ticket);
  for (const Slab& slab : slabs) slab.ExpectCopied();
  engine_.Drain();
}

// Two slabs whatever there is to copy and however often; a larger one only while it is needed.
TEST_P(StagedCopies, StagingSlabsAreMadeOnceAndShared) {
  const Slab slab({900, 800, 700}, 1), larger({3000, 800}, 2);
  CopyEngine other(device_.MakeTransport(), slabs_);
  for (int stage = 0; stage < 4; ++stage) {
    CopyEngine& engine = stage % 2 == 0 ? engine_ : other;
    engine.Wait(engine.Start(CopyOf(slab)));
    engine.Drain();
  }
  EXPECT_EQ(device_.host_allocations(), 2);
  EXPECT_EQ(device_.host_bytes(), 2 * kStagingBytes);
  engine_.Wait(engine_.Start(CopyOf(larger)));
  engine_.Drain();
  EXPECT_EQ(device_.host_allocations(), 3);
  EXPECT_EQ(device_.host_bytes(), 2 * kStagingBytes);
}

// What has been copied until then is on its way, and the slabs it is in must not be filled again.
TEST_P(StagedCopies, ACopyThatFailsHalfwayLeavesNoneWithoutAFence) {
  const Slab failing({900, 800, 700, 600}, 3), whole({900, 800, 700}, 4);
  device_.FailCopy(3);
  const CopyEngine::Ticket failed = engine_.Start(CopyOf(failing));
  EXPECT_THROW(engine_.Wait(failed), c10::Error);
  // It may be copied over and looked at.
  EXPECT_TRUE(at::equal(failing.to, failing.to.clone()));
  engine_.Wait(engine_.Start(CopyOf(whole)));
  whole.ExpectCopied();
  engine_.Wait(engine_.Start(CopyOf(failing)));
  failing.ExpectCopied();
  engine_.Drain();
}

// The device's memory is the host's: no staging, each piece where it belongs.
TEST(CopyEngineTest, PiecesAreWrittenInPlaceWhereNothingIsStaged) {
  CopyEngine engine(CreateCpuTransport(/*with_staging=*/false), std::make_shared<StagingSlabs>());
  const Slab slab({3000, 1000, 900, 700, 300, 1}, 7);
  engine.Wait(engine.Start({.to = slab.to, .slab = {}, .pieces = &slab.pieces, .after = nullptr}));
  slab.ExpectCopied();
}

}  // namespace
}  // namespace kino::engine
