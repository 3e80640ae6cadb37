#include "engine/core/memory_counter.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>

#include <atomic>
#include <mutex>

namespace kino::engine {
namespace {

std::atomic<int64_t> live{0};
std::atomic<int64_t> peak{0};

// The deleter learns the size from a prefix, so that a tensor freed on any thread is counted out.
// The prefix keeps the alignment torch promises (64 bytes).
constexpr size_t kPrefix = 64;

class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &Free, c10::Device(c10::DeviceType::CPU)};
    auto* block = static_cast<char*>(c10::alloc_cpu(bytes + kPrefix));
    *reinterpret_cast<size_t*>(block) = bytes;
    const int64_t now = live.fetch_add(static_cast<int64_t>(bytes), std::memory_order_relaxed) +
                        static_cast<int64_t>(bytes);
    int64_t seen = peak.load(std::memory_order_relaxed);
    while (now > seen && !peak.compare_exchange_weak(seen, now, std::memory_order_relaxed)) {
    }
    return {block + kPrefix, block, &Free, c10::Device(c10::DeviceType::CPU)};
  }
  // No raw deleter: raw_allocate() hands out pointers without their context, which the prefix
  // needs.
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

 private:
  static void Free(void* block) {
    if (block == nullptr) return;
    live.fetch_sub(static_cast<int64_t>(*static_cast<size_t*>(block)), std::memory_order_relaxed);
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
