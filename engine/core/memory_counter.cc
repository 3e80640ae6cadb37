#include "engine/core/memory_counter.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <malloc.h>

#include <atomic>
#include <mutex>

namespace kino::engine {
namespace {

std::atomic<int64_t> live{0};
std::atomic<int64_t> peak{0};

// What malloc set aside, which is a little more than what was asked for: known again when the block
// is freed, without a prefix. (A prefix would make the context differ from the data, which torch's
// raw_allocate forbids.)
int64_t BlockBytes(void* block) { return static_cast<int64_t>(malloc_usable_size(block)); }

class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* block = c10::alloc_cpu(bytes);
    if (block != nullptr) {
      const int64_t added = BlockBytes(block);
      const int64_t now = live.fetch_add(added, std::memory_order_relaxed) + added;
      int64_t seen = peak.load(std::memory_order_relaxed);
      while (now > seen && !peak.compare_exchange_weak(seen, now, std::memory_order_relaxed)) {
      }
    }
    return {block, block, &Free, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Free; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

 private:
  static void Free(void* block) {
    if (block == nullptr) return;
    live.fetch_sub(BlockBytes(block), std::memory_order_relaxed);
    c10::free_cpu(block);
  }
};

}  // namespace

void InstallMemoryCounter() {
  static std::once_flag once;
  std::call_once(once, [] {
    static CountingAllocator allocator;
    c10::SetCPUAllocator(&allocator, /*priority=*/1);
  });
}

MemoryCount HostMemoryCount() {
  return {.live_bytes = live.load(std::memory_order_relaxed),
          .peak_bytes = peak.load(std::memory_order_relaxed)};
}

void ResetHostMemoryPeak() {
  peak.store(live.load(std::memory_order_relaxed), std::memory_order_relaxed);
}

}  // namespace kino::engine
