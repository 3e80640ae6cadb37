// How many units of work (blocks, tiles, chunks, groups of weights) a device has done, for whoever
// outside judges whether it still works. No torch.
#pragma once

#include <atomic>
#include <cstdint>

namespace kino::engine {

class WorkCounter {
 public:
  virtual ~WorkCounter() = default;
  // One unit more is asked of the device. The thread that computes.
  virtual void Count() = 0;
  // Of those the units that are done; never falls. Any thread; never blocks.
  virtual uint64_t done() const = 0;
};

// Of the CPU, where work is done when its call returns. Thread-safe.
class HostWorkCounter final : public WorkCounter {
 public:
  void Count() override { done_.fetch_add(1, std::memory_order_relaxed); }
  uint64_t done() const override { return done_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> done_{0};
};

}  // namespace kino::engine
