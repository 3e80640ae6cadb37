#include "engine/memory/copy_engine.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <mutex>
#include <utility>

namespace kino::engine {
namespace {

struct LateFence : Fence {
  explicit LateFence(int64_t copies_before) : copies(copies_before) {}
  const int64_t copies;  // are done at this point
};

// A device whose copies happen as late as they may: when something waits for them.
class LateTransport final : public Transport {
 public:
  bool needs_staging() const override { return true; }
  at::Tensor AllocateHost(int64_t bytes) override {
    return at::empty({bytes}, at::TensorOptions(at::kByte));
  }
  std::shared_ptr<const Fence> ComputeFence() override { return std::make_shared<LateFence>(0); }
  std::shared_ptr<const Fence> Copy(const at::Tensor& to, const at::Tensor& from,
                                    const Fence*) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    sizes.push_back(from.numel());
    queued_.push_back([to, from] { to.copy_(from); });
    return std::make_shared<LateFence>(static_cast<int64_t>(sizes.size()));
  }
  void ComputeAfter(const Fence& fence) override { WaitFor(fence); }
  // Copies are done in order.
  void WaitFor(const Fence& fence) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (; done_ < dynamic_cast<const LateFence&>(fence).copies; ++done_) {
      queued_.front()();
      queued_.pop_front();
    }
  }

  std::vector<int64_t> sizes;  // of the copies so far; guarded by mutex_

 private:
  std::mutex mutex_;
  std::deque<std::function<void()>> queued_;  // guarded by mutex_
  int64_t done_ = 0;                          // guarded by mutex_
};

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

// Six copies through two staging slabs, the last of one byte: what the slab held before must be on
// the device before it is filled again.
TEST(CopyEngineTest, ASlabOfManyStagingSlabsArrivesWhole) {
  auto owned = std::make_unique<LateTransport>();
  LateTransport& transport = *owned;
  CopyEngine engine(std::move(owned), kStagingBytes);
  const Slab slab({3000, 1000, 900, 700, 300, 232, 200, 40, 30, 20, 1}, 7);
  engine.Wait(engine.Start({.to = slab.to, .slab = {}, .pieces = &slab.pieces, .after = nullptr}));
  slab.ExpectCopied();
  // One piece that is larger than a staging slab, and as many of the others as one holds.
  EXPECT_EQ(transport.sizes, (std::vector<int64_t>{3000, 1000, 900, 700, 768 + 200, 768 + 1}));
  engine.Drain();
}

TEST(CopyEngineTest, SlabsBehindEachOtherShareTheStagingSlabs) {
  CopyEngine engine(std::make_unique<LateTransport>(), kStagingBytes);
  std::vector<Slab> slabs;
  for (int i = 0; i < 5; ++i) {
    // An odd number of copies, so that each begins with the other staging slab.
    slabs.push_back(Slab({900, 800, 700}, 31 * i));
  }
  std::vector<CopyEngine::Ticket> tickets;
  for (const Slab& slab : slabs) {
    tickets.push_back(
        engine.Start({.to = slab.to, .slab = {}, .pieces = &slab.pieces, .after = nullptr}));
  }
  for (const CopyEngine::Ticket ticket : tickets) engine.Wait(ticket);
  for (const Slab& slab : slabs) slab.ExpectCopied();
  engine.Drain();
}

// The device's memory is the host's: no staging, each piece where it belongs.
TEST(CopyEngineTest, PiecesAreWrittenInPlaceWhereNothingIsStaged) {
  CopyEngine engine(CreateCpuTransport(/*with_staging=*/false), kStagingBytes);
  const Slab slab({3000, 1000, 900, 700, 300, 1}, 7);
  engine.Wait(engine.Start({.to = slab.to, .slab = {}, .pieces = &slab.pieces, .after = nullptr}));
  slab.ExpectCopied();
}

}  // namespace
}  // namespace kino::engine
