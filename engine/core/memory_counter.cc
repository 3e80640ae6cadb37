#include "engine/core/memory_counter.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/alignment.h>
#include <c10/util/Exception.h>
#include <malloc.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <mutex>

namespace kino::engine {
namespace {

// Live bytes and the most there were at once.
class Counter {
 public:
  void Add(int64_t delta) {
    const int64_t now = live_.fetch_add(delta, std::memory_order_relaxed) + delta;
    int64_t seen = peak_.load(std::memory_order_relaxed);
    while (now > seen && !peak_.compare_exchange_weak(seen, now, std::memory_order_relaxed)) {
    }
  }
  MemoryCount count() const {
    return {.live_bytes = live_.load(std::memory_order_relaxed),
            .peak_bytes = peak_.load(std::memory_order_relaxed)};
  }
  void ResetPeak() {
    peak_.store(live_.load(std::memory_order_relaxed), std::memory_order_relaxed);
    Add(0);  // what another thread added between the two
  }

 private:
  std::atomic<int64_t> live_{0};
  std::atomic<int64_t> peak_{0};
};

Counter host;
Counter device_weights;
std::atomic<int64_t> limit{0};

void CheckLimit(int64_t bytes) {
  const int64_t most = limit.load(std::memory_order_relaxed);
  const int64_t live = host.count().live_bytes;
  TORCH_CHECK_WITH(OutOfMemoryError, most == 0 || live + bytes <= most, "tensors of ", live,
                   " bytes are live and ", bytes, " more are needed, but the limit is ", most);
}

// Blocks of tensors, aligned as torch's own allocator aligns them. Not from posix_memalign: until
// glibc 2.38 it asks malloc for more than it keeps, so a freed block cannot serve the next request
// of its own size once a neighbour took the rest, and a run that streams weights grew by one block
// per layer (glibc bug 14581). Here a block asks for the same each time: alignment is made inside
// it, and the word before the data leads back to its start.
constexpr size_t kAlignment = c10::gAlignment;

void* StartOf(void* data) { return static_cast<void**>(data)[-1]; }

// What malloc set aside, which is a little more than what was asked for.
int64_t BlockBytes(void* data) { return static_cast<int64_t>(malloc_usable_size(StartOf(data))); }

void* AllocateBlock(size_t bytes) {
  void* start = std::malloc(bytes + kAlignment);
  TORCH_CHECK_WITH(OutOfMemoryError, start != nullptr,
                   "host memory ran out: you tried to allocate ", bytes, " bytes");
  // At least 16 bytes lie between a start of malloc's and the next multiple of 64.
  static_assert(alignof(std::max_align_t) >= sizeof(void*));
  const auto address = reinterpret_cast<uintptr_t>(start);
  void** data = reinterpret_cast<void**>((address / kAlignment + 1) * kAlignment);
  data[-1] = start;
  return data;
}

class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    CheckLimit(static_cast<int64_t>(bytes));
    void* block = bytes == 0 ? nullptr : AllocateBlock(bytes);
    if (block != nullptr) host.Add(BlockBytes(block));
    return {block, block, &Free, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Free; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

 private:
  static void Free(void* block) {
    if (block == nullptr) return;
    host.Add(-BlockBytes(block));
    std::free(StartOf(block));
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

MemoryCount HostMemoryCount() { return host.count(); }

void ResetHostMemoryPeak() { host.ResetPeak(); }

void SetHostMemoryLimit(int64_t bytes) { limit.store(bytes, std::memory_order_relaxed); }

void CountHostMemory(int64_t delta) {
  if (delta > 0) CheckLimit(delta);
  host.Add(delta);
}

void CountDeviceWeights(int64_t delta) { device_weights.Add(delta); }

MemoryCount DeviceWeightCount() { return device_weights.count(); }

void ResetDeviceWeightPeak() { device_weights.ResetPeak(); }

}  // namespace kino::engine
