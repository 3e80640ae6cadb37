#include "engine/memory/cuda_transport.h"

#include <ATen/ops/from_blob.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>
#include <cuda_runtime_api.h>

#include "engine/core/memory_counter.h"

namespace kino::engine {
namespace {

class Event final : public Fence {
 public:
  Event() { C10_CUDA_CHECK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  ~Event() override { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  // The work of `stream` so far. When that cannot be told, the work is done when this throws.
  void Record(const c10::cuda::CUDAStream& stream) {
    const cudaError_t error = cudaEventRecord(event_, stream.stream());
    if (error == cudaSuccess) return;
    (void)cudaStreamSynchronize(stream.stream());
    C10_CUDA_CHECK(error);
  }
  void MakeWait(const c10::cuda::CUDAStream& stream) const {
    C10_CUDA_CHECK(cudaStreamWaitEvent(stream.stream(), event_));
  }
  void Synchronize() const { C10_CUDA_CHECK(cudaEventSynchronize(event_)); }

 private:
  cudaEvent_t event_ = nullptr;
};

const Event& AsEvent(const Fence& fence) { return static_cast<const Event&>(fence); }

class CudaTransport final : public Transport {
 public:
  explicit CudaTransport(c10::Device device)
      : device_(device),
        stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device.index())) {}

  bool needs_staging() const override { return true; }
  // Of just this size, which torch's caching allocator would round up to a power of two and keep.
  at::Tensor AllocateHost(int64_t bytes) override {
    const c10::cuda::CUDAGuard guard(device_);
    CountHostMemory(bytes);
    void* memory = nullptr;
    const cudaError_t error =
        cudaHostAlloc(&memory, static_cast<size_t>(bytes), cudaHostAllocDefault);
    if (error != cudaSuccess) {
      CountHostMemory(-bytes);
      (void)cudaGetLastError();  // taken note of here
      TORCH_CHECK_WITH(OutOfMemoryError, false, "no ", bytes,
                       " bytes of page-locked memory: ", cudaGetErrorString(error));
    }
    return at::from_blob(
        memory, {bytes},
        [bytes](void* freed) {
          cudaFreeHost(freed);
          CountHostMemory(-bytes);
        },
        at::TensorOptions().dtype(at::kByte));
  }
  std::shared_ptr<const Fence> ComputeFence() override {
    const c10::cuda::CUDAGuard guard(device_);
    auto event = std::make_shared<Event>();
    event->Record(c10::cuda::getCurrentCUDAStream(device_.index()));
    return event;
  }
  std::shared_ptr<const Fence> Copy(const at::Tensor& to, const at::Tensor& from,
                                    const Fence* after) override {
    const c10::cuda::CUDAGuard guard(device_);
    // First, so that one that cannot be made leaves no copy under way without a fence.
    auto event = std::make_shared<Event>();
    if (after != nullptr) AsEvent(*after).MakeWait(stream_);
    C10_CUDA_CHECK(cudaMemcpyAsync(to.data_ptr(), from.const_data_ptr(),
                                   static_cast<size_t>(from.nbytes()), cudaMemcpyHostToDevice,
                                   stream_.stream()));
    event->Record(stream_);
    return event;
  }
  void ComputeAfter(const Fence& fence) override {
    const c10::cuda::CUDAGuard guard(device_);
    AsEvent(fence).MakeWait(c10::cuda::getCurrentCUDAStream(device_.index()));
  }
  void WaitFor(const Fence& fence) override {
    const c10::cuda::CUDAGuard guard(device_);
    AsEvent(fence).Synchronize();
  }

 private:
  c10::Device device_;
  c10::cuda::CUDAStream stream_;
};

}  // namespace

std::unique_ptr<Transport> CreateCudaTransport(c10::Device device) {
  return std::make_unique<CudaTransport>(device);
}

}  // namespace kino::engine
