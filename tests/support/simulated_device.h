// A device in host memory whose copies finish as late and as disorderly as their fences allow, for
// tests of what orders copies among compute work (engine/memory). Compute work is what torch runs
// on the thread that made the device, done at once; a real device may do it as late as a fence on
// it is waited for, so every piece of it is written down with the memory it uses:
//
// - A copy into memory that compute work uses which its fence does not cover is a violation, and so
//   is compute work in memory that a copy writes which it was not made to wait for.
// - So is memory that is freed, or given to other work, under a copy.
// - So is host memory that is freed or written while a copy may read it, which it may until the
// host
//   has waited for it: compute work that comes after the copy tells the host nothing.
// - What is copied is read only when the copy is done, and until then there are NaNs in its place.
//
// Work that takes its pointers past torch's dispatcher is not written down; NaNs show it. Threads:
// made, and destroyed last, on the compute thread; transports as their contract says.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/function_schema.h>
#include <ATen/ops/from_blob.h>
#include <ATen/record_function.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/memory_counter.h"
#include "engine/memory/transport.h"

namespace kino::testing {

// When a copy that may be done is.
enum class Pace {
  kAtOnce,
  kLate,    // when something waits for it
  kRandom,  // in between, one stream before the other
};
inline constexpr Pace kPaces[] = {Pace::kAtOnce, Pace::kLate, Pace::kRandom};

class SimulatedDevice {
 public:
  explicit SimulatedDevice(Pace pace, uint64_t seed = 1) : state_(std::make_shared<State>()) {
    state_->pace = pace;
    state_->random.seed(seed);
    previous_ = std::exchange(current_, state_.get());
    callback_ = at::addThreadLocalCallback(at::RecordFunctionCallback(&OnStart, &OnEnd)
                                               .needsInputs(true)
                                               .needsOutputs(true)
                                               .scopes({at::RecordScope::FUNCTION}));
  }
  ~SimulatedDevice() {
    at::removeCallback(callback_);
    current_ = previous_;
    for (const std::string& violation : TakeViolations()) ADD_FAILURE() << violation;
  }
  SimulatedDevice(const SimulatedDevice&) = delete;
  SimulatedDevice& operator=(const SimulatedDevice&) = delete;

  // With a copy stream of its own.
  std::unique_ptr<engine::Transport> MakeTransport() {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->streams.emplace_back();
    return std::make_unique<SimulatedTransport>(state_, state_->streams.size() - 1);
  }

  // What went wrong so far; what is not taken fails the test.
  std::vector<std::string> TakeViolations() {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->CheckFreed();
    return std::exchange(state_->violations, {});
  }
  // Bytes of the copies so far, in order, and the allocations of host memory.
  std::vector<int64_t> copies() const {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    return state_->copy_bytes;
  }
  int host_allocations() const {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    return state_->host_allocations;
  }
  int64_t host_bytes() const {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    return state_->host_bytes;
  }
  // The n-th call from now on throws, as a device that has no event to give does; 1 is the next.
  void FailCopy(int n) {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->copies_to_failure = n;
  }
  void FailComputeFence(int n) {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->fences_to_failure = n;
  }

 private:
  // Bytes of memory.
  struct Range {
    uintptr_t begin = 0, end = 0;
    bool Overlaps(const Range& other) const { return begin < other.end && other.begin < end; }
    bool operator<(const Range& other) const {
      return std::pair(begin, end) < std::pair(other.begin, other.end);
    }
  };
  static Range RangeOf(const at::Tensor& tensor) {
    if (!tensor.defined() || !tensor.is_cpu() || !tensor.has_storage() || tensor.numel() == 0)
      return {};
    const auto begin = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
    if (begin == 0) return {};
    int64_t last = 0;
    for (int64_t i = 0; i < tensor.dim(); ++i) last += (tensor.size(i) - 1) * tensor.stride(i);
    return {begin, begin + static_cast<uintptr_t>(last + 1) * tensor.itemsize()};
  }
  static constexpr int kPoison = 0xFF;  // NaN in every floating-point dtype

  struct ComputePoint : engine::Fence {
    explicit ComputePoint(int64_t work_before) : work(work_before) {}
    const int64_t work;
  };
  struct CopyPoint : engine::Fence {
    CopyPoint(size_t of_stream, int64_t copies_before) : stream(of_stream), copies(copies_before) {}
    const size_t stream;
    const int64_t copies;
  };

  struct PendingCopy {
    c10::Storage to;  // keeps the memory
    Range to_range, from_range;
  };
  // Done in order. What is done, but not waited for by the compute work, is kept.
  struct Stream {
    std::deque<PendingCopy> copies;
    int64_t first = 0;  // how many came before copies.front()
    int64_t done = 0;   // how many are done
  };

  // Of the latest copy out of some host memory that the host has not waited for.
  struct HostRead {
    size_t stream = 0;
    int64_t copy = 0;
    uint64_t digest = 0;
  };

  struct State {
    mutable std::mutex mutex;
    Pace pace = Pace::kLate;
    std::mt19937_64 random;
    std::vector<Stream> streams;
    std::map<Range, HostRead> reads;
    std::map<Range, int64_t> uses;  // the last compute work that used the memory
    int64_t work = 0;
    std::vector<std::string> violations;
    std::vector<int64_t> copy_bytes;
    int host_allocations = 0;
    int64_t host_bytes = 0;
    int copies_to_failure = 0, fences_to_failure = 0;

    void Violate(std::string_view what) { violations.emplace_back(what); }
    void Use(const char* name, const at::Tensor& tensor) {
      const Range range = RangeOf(tensor);
      if (range.begin == range.end) return;
      int64_t& last = uses[range];
      last = work;
      for (const Stream& stream : streams) {
        for (const PendingCopy& copy : stream.copies) {
          if (copy.to_range.Overlaps(range)) {
            Violate(absl::StrCat("compute work ", work, " (", name,
                                 ") uses memory of a copy that it was not made to wait for"));
          }
        }
      }
    }
    void CheckFreed() {
      for (Stream& stream : streams) {
        for (PendingCopy& copy : stream.copies) {
          if (copy.to && copy.to.use_count() == 1) {
            Violate("memory was freed under a copy that the compute work was not made to wait for");
            copy.to = c10::Storage();
          }
        }
      }
    }
    static uint64_t Digest(const Range& range) {
      uint64_t digest = 14695981039346656037u;  // FNV-1a
      for (uintptr_t at = range.begin; at < range.end; ++at)
        digest = (digest ^ *reinterpret_cast<const unsigned char*>(at)) * 1099511628211u;
      return digest;
    }
    // What lies in `within` is as it was when the copies were asked for.
    void CheckWritten(const Range& within) {
      for (auto& [range, read] : reads) {
        if (!range.Overlaps(within) || Digest(range) == read.digest) continue;
        Violate("host memory was written under a copy that reads it");
        read.digest = Digest(range);
      }
    }
    // Does the copies of `stream` before `end`.
    void Do(Stream& stream, int64_t end) {
      for (; stream.done < end; ++stream.done) {
        const PendingCopy& copy = stream.copies.at(static_cast<size_t>(stream.done - stream.first));
        if (!copy.to) continue;
        std::memcpy(reinterpret_cast<void*>(copy.to_range.begin),
                    reinterpret_cast<const void*>(copy.from_range.begin),
                    copy.to_range.end - copy.to_range.begin);
      }
    }
    int64_t All(const Stream& stream) const {
      return stream.first + static_cast<int64_t>(stream.copies.size());
    }
    // Time goes by.
    void Pass() {
      CheckFreed();
      if (pace == Pace::kLate || streams.empty()) return;
      if (pace == Pace::kAtOnce) {
        for (Stream& stream : streams) Do(stream, All(stream));
      } else if (random() % 4 == 0) {
        Stream& stream = streams[random() % streams.size()];
        if (stream.done < All(stream)) Do(stream, stream.done + 1);
      }
    }
  };

  class SimulatedTransport final : public engine::Transport {
   public:
    SimulatedTransport(std::shared_ptr<State> state, size_t stream)
        : state_(std::move(state)), stream_(stream) {}

    bool needs_staging() const override { return true; }
    at::Tensor AllocateHost(int64_t bytes) override {
      engine::CountHostMemory(bytes);
      {
        const std::lock_guard<std::mutex> lock(state_->mutex);
        ++state_->host_allocations;
        state_->host_bytes += bytes;
      }
      auto* const memory = new char[static_cast<size_t>(bytes)];
      return at::from_blob(
          memory, {bytes}, [state = state_, bytes](void* freed) { FreeHost(*state, freed, bytes); },
          at::TensorOptions().dtype(at::kByte));
    }
    std::shared_ptr<const engine::Fence> ComputeFence() override {
      const std::lock_guard<std::mutex> lock(state_->mutex);
      state_->Pass();
      TORCH_CHECK(state_->fences_to_failure == 0 || --state_->fences_to_failure > 0,
                  "no event for compute work (simulated)");
      return std::make_shared<ComputePoint>(state_->work);
    }
    std::shared_ptr<const engine::Fence> Copy(const at::Tensor& to, const at::Tensor& from,
                                              const engine::Fence* after) override {
      const std::lock_guard<std::mutex> lock(state_->mutex);
      state_->Pass();
      TORCH_CHECK(state_->copies_to_failure == 0 || --state_->copies_to_failure > 0,
                  "no event for a copy (simulated)");
      TORCH_CHECK(to.nbytes() == from.nbytes() && to.is_contiguous() && from.is_contiguous(),
                  "a copy of ", from.nbytes(), " bytes to ", to.nbytes());
      state_->CheckWritten(RangeOf(from));
      const PendingCopy copy{
          .to = to.storage(), .to_range = RangeOf(to), .from_range = RangeOf(from)};
      const auto* const point = dynamic_cast<const ComputePoint*>(after);
      const int64_t covered = point == nullptr ? -1 : point->work;
      for (const auto& [range, last] : state_->uses) {
        if (last <= covered || !range.Overlaps(copy.to_range)) continue;
        state_->Violate(
            absl::StrCat("a copy of ", to.nbytes(), " bytes into memory that compute work ", last,
                         " uses, with a fence behind ",
                         point == nullptr ? std::string("none") : absl::StrCat("work ", covered)));
        break;
      }
      // From now on the copy may be under way.
      std::memset(reinterpret_cast<void*>(copy.to_range.begin), kPoison, to.nbytes());
      state_->copy_bytes.push_back(static_cast<int64_t>(to.nbytes()));
      Stream& stream = state_->streams[stream_];
      stream.copies.push_back(copy);
      const int64_t end = state_->All(stream);
      state_->reads[copy.from_range] = {
          .stream = stream_, .copy = end - 1, .digest = State::Digest(copy.from_range)};
      if (state_->pace == Pace::kAtOnce) state_->Do(stream, end);
      return std::make_shared<CopyPoint>(stream_, end);
    }
    void ComputeAfter(const engine::Fence& fence) override {
      const auto& point = dynamic_cast<const CopyPoint&>(fence);
      const std::lock_guard<std::mutex> lock(state_->mutex);
      Stream& stream = state_->streams[point.stream];
      state_->Do(stream, point.copies);
      for (; stream.first < point.copies; ++stream.first) stream.copies.pop_front();
      state_->Pass();
    }
    void WaitFor(const engine::Fence& fence) override {
      const auto& point = dynamic_cast<const CopyPoint&>(fence);
      const std::lock_guard<std::mutex> lock(state_->mutex);
      state_->CheckWritten({.begin = 0, .end = UINTPTR_MAX});
      state_->Do(state_->streams[point.stream], point.copies);
      std::erase_if(state_->reads, [&](const auto& read) {
        return read.second.stream == point.stream && read.second.copy < point.copies;
      });
      state_->Pass();
    }

   private:
    static void FreeHost(State& state, void* memory, int64_t bytes) {
      const auto begin = reinterpret_cast<uintptr_t>(memory);
      const Range range{begin, begin + static_cast<uintptr_t>(bytes)};
      {
        const std::lock_guard<std::mutex> lock(state.mutex);
        const auto read =
            std::find_if(state.reads.begin(), state.reads.end(),
                         [&](const auto& each) { return each.first.Overlaps(range); });
        if (read != state.reads.end()) {
          state.Violate("host memory was freed under a copy that reads it");
          std::erase_if(state.reads, [&](const auto& each) { return each.first.Overlaps(range); });
          for (Stream& stream : state.streams) state.Do(stream, state.All(stream));
        }
        state.host_bytes -= bytes;
      }
      delete[] static_cast<char*>(memory);
      engine::CountHostMemory(-bytes);
    }

    const std::shared_ptr<State> state_;
    const size_t stream_;
  };

  // Gives other views of memory and uses none.
  static bool OnlyLooks(const at::RecordFunction& function) {
    const auto schema = function.operator_schema();
    if (!schema) return false;
    return std::any_of(schema->returns().begin(), schema->returns().end(),
                       [](const c10::Argument& result) {
                         return result.alias_info() != nullptr && !result.alias_info()->isWrite();
                       });
  }
  template <typename Values>
  static void UseAll(const at::RecordFunction& function, const Values& values) {
    if (current_ == nullptr || OnlyLooks(function)) return;
    const std::lock_guard<std::mutex> lock(current_->mutex);
    ++current_->work;
    current_->Pass();
    for (const c10::IValue& value : values) {
      if (value.isTensor()) {
        current_->Use(function.name(), value.toTensor());
      } else if (value.isTensorList()) {
        for (const at::Tensor& tensor : value.toTensorVector())
          current_->Use(function.name(), tensor);
      }
    }
  }
  static std::unique_ptr<at::ObserverContext> OnStart(const at::RecordFunction& function) {
    UseAll(function, function.inputs());
    return nullptr;
  }
  static void OnEnd(const at::RecordFunction& function, at::ObserverContext*) {
    UseAll(function, function.outputs());
  }

  static inline thread_local State* current_ = nullptr;
  const std::shared_ptr<State> state_;
  State* previous_ = nullptr;
  at::CallbackHandle callback_ = 0;
};

}  // namespace kino::testing
