#include "engine/memory/cuda_copy_engine.h"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <cstring>
#include <deque>
#include <unordered_map>

namespace kino::engine {
namespace {

// An event that lives as long as it is waited for.
class Event {
 public:
  Event() { C10_CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void Record(const c10::cuda::CUDAStream& stream) {
    C10_CUDA_CHECK(cudaEventRecord(event_, stream.stream()));
  }
  void MakeWait(const c10::cuda::CUDAStream& stream) {
    C10_CUDA_CHECK(cudaStreamWaitEvent(stream.stream(), event_));
  }
  void Synchronize() { C10_CUDA_CHECK(cudaEventSynchronize(event_)); }

 private:
  cudaEvent_t event_ = nullptr;
};

// Home bytes, cast to the compute dtype once, are kept in a pinned slab per slot layout: the first
// pass over the blocks fills the slabs, every later pass is one asynchronous copy a group.
class CudaCopyEngine final : public CopyEngine {
 public:
  explicit CudaCopyEngine(c10::Device device)
      : device_(device),
        stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device.index())) {}

  Ticket Start(const SlotCopy& copy) override {
    const c10::cuda::CUDAGuard guard(device_);
    int64_t total = 0;
    const std::vector<int64_t> offsets = SlotOffsets(copy.weights, &total);
    const at::Tensor& slab = Slab(copy.weights, offsets, total);
    // The buffer's last use, recorded by Release on the compute stream.
    if (const auto it = released_.find(copy.buffer.data_ptr()); it != released_.end())
      it->second->MakeWait(stream_);
    C10_CUDA_CHECK(cudaMemcpyAsync(copy.buffer.data_ptr(), slab.data_ptr(),
                                   static_cast<size_t>(total), cudaMemcpyHostToDevice,
                                   stream_.stream()));
    for (size_t i = 0; i < copy.weights.size(); ++i) {
      Weight& weight = *copy.weights[i];
      weight.value =
          copy.buffer.narrow(0, offsets[i], weight.bytes()).view(weight.dtype).view(weight.shape);
    }
    auto done = std::make_unique<Event>();
    done->Record(stream_);
    copies_[++started_] = std::move(done);
    return started_;
  }

  void Wait(Ticket ticket) override {
    const auto it = copies_.find(ticket);
    if (it == copies_.end()) return;
    it->second->MakeWait(c10::cuda::getCurrentCUDAStream(device_.index()));
    copies_.erase(it);
  }

  void Release(const SlotCopy& copy) override {
    std::unique_ptr<Event>& event = released_[copy.buffer.data_ptr()];
    if (!event) event = std::make_unique<Event>();
    event->Record(c10::cuda::getCurrentCUDAStream(device_.index()));
  }

 private:
  const at::Tensor& Slab(const std::vector<Weight*>& weights, const std::vector<int64_t>& offsets,
                         int64_t total) {
    at::Tensor& slab = slabs_[weights.front()];
    if (slab.defined()) return slab;
    slab = at::empty({total}, at::TensorOptions().dtype(at::kByte).pinned_memory(true));
    for (size_t i = 0; i < weights.size(); ++i) {
      const Weight& weight = *weights[i];
      slab.narrow(0, offsets[i], weight.bytes())
          .view(weight.dtype)
          .view(weight.shape)
          .copy_(HomeTensor(weight));
    }
    return slab;
  }

  c10::Device device_;
  c10::cuda::CUDAStream stream_;
  Ticket started_ = 0;
  std::unordered_map<Ticket, std::unique_ptr<Event>> copies_;
  std::unordered_map<const void*, std::unique_ptr<Event>> released_;
  std::unordered_map<const Weight*, at::Tensor> slabs_;
};

}  // namespace

std::unique_ptr<CopyEngine> CreateCudaCopyEngine(c10::Device device) {
  return std::make_unique<CudaCopyEngine>(device);
}

}  // namespace kino::engine
