// Runs CUDA kernels on the CPU, so that every test run sees what they compute and, with ASan, where
// they read and write. A file that includes this, and then a .cu file, compiles its kernels with
// the host's compiler; launches go through KINO_LAUNCH.
//
// The threads of a block are fibers. Which of those that can run does, a Schedule decides at every
// barrier: unfairly, so that a barrier that is missing shows. Blocks run one after the other, as a
// device may. It tells nothing of speed, of limits of a launch, or of memory order. One thread.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

namespace kino::testing {

enum class Schedule {
  kFirst,   // the thread with the lowest index that can run
  kLast,    // with the highest
  kRandom,  // any
};
inline constexpr Schedule kSchedules[] = {Schedule::kFirst, Schedule::kLast, Schedule::kRandom};

class CudaBlock {
 public:
  static inline Schedule schedule = Schedule::kFirst;
  static inline std::mt19937 random{1};
  static inline CudaBlock* current = nullptr;

  CudaBlock(unsigned grid, unsigned threads, unsigned index)
      : grid_{grid, 1, 1},
        threads_{threads, 1, 1},
        index_{index, 0, 0},
        fibers_(threads),
        warps_((threads + 31) / 32),
        exchanged_(threads) {}

  // Runs `body` once for each thread.
  void Run(const std::function<void()>& body) {
    current = this;
    body_ = &body;
    for (size_t i = 0; i < fibers_.size(); ++i) Prepare(i);
    std::vector<unsigned> ready;
    for (;;) {
      ready.clear();
      unsigned left = 0;
      for (unsigned i = 0; i < fibers_.size(); ++i) {
        const Fiber& fiber = fibers_[i];
        if (fiber.is_done) continue;
        ++left;
        if (fiber.waits_on == nullptr || fiber.waits_on->generation != fiber.generation)
          ready.push_back(i);
      }
      if (left == 0) break;
      if (ready.empty()) {
        ADD_FAILURE() << "a barrier of block " << index_.x << " that not all of its threads reach";
        break;
      }
      Resume(Pick(ready));
    }
    current = nullptr;
  }

  void Synchronize() { Wait(block_, static_cast<unsigned>(fibers_.size())); }
  // All lanes of a warp take part.
  template <typename T>
  T Shuffle(T value, unsigned lane) {
    static_assert(sizeof(T) <= sizeof(uint64_t));
    const unsigned warp = running_ / 32;
    const unsigned size = std::min(32u, static_cast<unsigned>(fibers_.size()) - warp * 32);
    std::memcpy(&exchanged_[running_], &value, sizeof(T));
    Wait(warps_[warp], size);
    std::memcpy(&value, &exchanged_[warp * 32 + lane % 32], sizeof(T));
    Wait(warps_[warp], size);
    return value;
  }
  unsigned lane() const { return running_ % 32; }
  dim3 thread() const { return {running_, 0, 0}; }
  dim3 block() const { return index_; }
  dim3 block_size() const { return threads_; }
  dim3 grid() const { return grid_; }

 private:
  static constexpr size_t kStackBytes = 128 << 10;
  struct Barrier {
    unsigned arrived = 0;
    uint64_t generation = 0;
  };
  struct Fiber {
    ucontext_t context = {};
    bool is_done = false;
    Barrier* waits_on = nullptr;
    uint64_t generation = 0;
  };

  // Stacks are kept from block to block.
  static char* Stack(size_t index) {
    static std::vector<std::unique_ptr<char[]>> stacks;
    while (stacks.size() <= index) stacks.push_back(std::make_unique<char[]>(kStackBytes));
    return stacks[index].get();
  }
  void Prepare(size_t index) {
    Fiber& fiber = fibers_[index];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = Stack(index);
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = &scheduler_;
    makecontext(&fiber.context, &CudaBlock::Enter, 0);
  }
  static void Enter() {
    (*current->body_)();
    current->fibers_[current->running_].is_done = true;
  }
  static unsigned Pick(const std::vector<unsigned>& ready) {
    switch (schedule) {
      case Schedule::kFirst:
        return ready.front();
      case Schedule::kLast:
        return ready.back();
      case Schedule::kRandom:
        return ready[random() % ready.size()];
    }
    return 0;
  }
  void Resume(unsigned index) {
    running_ = index;
    fibers_[index].waits_on = nullptr;
    swapcontext(&scheduler_, &fibers_[index].context);
  }
  void Wait(Barrier& barrier, unsigned size) {
    Fiber& fiber = fibers_[running_];
    if (++barrier.arrived == size) {
      barrier.arrived = 0;
      ++barrier.generation;
    } else {
      fiber.waits_on = &barrier;
      fiber.generation = barrier.generation;
    }
    swapcontext(&fiber.context, &scheduler_);
  }

  dim3 grid_, threads_, index_;
  std::vector<Fiber> fibers_;
  Barrier block_;
  std::vector<Barrier> warps_;
  std::vector<uint64_t> exchanged_;
  const std::function<void()>* body_ = nullptr;
  ucontext_t scheduler_ = {};
  unsigned running_ = 0;
};

template <typename Kernel>
auto EmulatedLaunch(Kernel kernel, unsigned blocks, unsigned threads) {
  return [=](auto... arguments) {
    for (unsigned i = 0; i < blocks; ++i)
      CudaBlock(blocks, threads, i).Run([&] { kernel(arguments...); });
  };
}

}  // namespace kino::testing

#define threadIdx (::kino::testing::CudaBlock::current->thread())
#define blockIdx (::kino::testing::CudaBlock::current->block())
#define blockDim (::kino::testing::CudaBlock::current->block_size())
#define gridDim (::kino::testing::CudaBlock::current->grid())
#undef __shared__
#define __shared__ static
#define __syncthreads() ::kino::testing::CudaBlock::current->Synchronize()
#define __shfl_xor_sync(mask, value, offset)    \
  ::kino::testing::CudaBlock::current->Shuffle( \
      value, ::kino::testing::CudaBlock::current->lane() ^ static_cast<unsigned>(offset))
#define KINO_LAUNCH(kernel, blocks, threads, stream) \
  (void)(stream), ::kino::testing::EmulatedLaunch(kernel, blocks, threads)
#define cudaGetLastError() cudaSuccess

inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
