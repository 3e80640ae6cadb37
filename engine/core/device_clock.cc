#include "engine/core/device_clock.h"

#include <chrono>

#ifdef KINO_WITH_CUDA
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#endif

namespace kino::engine {
namespace {

using Clock = std::chrono::steady_clock;

struct HostMark : TimeMark {
  const Clock::time_point time = Clock::now();
};

double HostSeconds(const TimeMark& begin, const TimeMark& end) {
  const auto& from = static_cast<const HostMark&>(begin);
  const auto& to = static_cast<const HostMark&>(end);
  return std::chrono::duration<double>(to.time - from.time).count();
}

class HostClock final : public DeviceClock {
 public:
  std::shared_ptr<const TimeMark> Mark() override { return std::make_shared<HostMark>(); }
  std::optional<double> Between(const TimeMark& begin, const TimeMark& end, bool) override {
    return HostSeconds(begin, end);
  }
  bool Reached(const TimeMark&) override { return true; }
};

#ifdef KINO_WITH_CUDA
// Unlike torch's guards it does not throw: a run must not fail for its clock. An error leaves the
// host's time, and the next use of the device tells of it.
class OnDevice {
 public:
  explicit OnDevice(c10::Device device)
      : is_other_(cudaGetDevice(&before_) == cudaSuccess && before_ != device.index()) {
    if (is_other_) (void)cudaSetDevice(device.index());
  }
  ~OnDevice() {
    if (is_other_) (void)cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
  const bool is_other_;
};

struct EventMark final : HostMark {
  ~EventMark() override {
    if (event != nullptr) cudaEventDestroy(event);
  }
  cudaEvent_t event = nullptr;
  bool is_recorded = false;
};

class CudaClock final : public DeviceClock {
 public:
  explicit CudaClock(c10::Device device) : device_(device) {}

  std::shared_ptr<const TimeMark> Mark() override {
    const OnDevice current(device_);
    auto mark = std::make_shared<EventMark>();
    mark->is_recorded =
        cudaEventCreate(&mark->event) == cudaSuccess &&
        cudaEventRecord(mark->event, c10::cuda::getCurrentCUDAStream(device_.index()).stream()) ==
            cudaSuccess;
    if (!mark->is_recorded) (void)cudaGetLastError();
    return mark;
  }
  std::optional<double> Between(const TimeMark& begin, const TimeMark& end, bool wait) override {
    const auto& from = static_cast<const EventMark&>(begin);
    const auto& to = static_cast<const EventMark&>(end);
    if (!from.is_recorded || !to.is_recorded) return HostSeconds(begin, end);
    const cudaError_t reached = wait ? cudaEventSynchronize(to.event) : cudaEventQuery(to.event);
    float milliseconds = 0;
    if (reached == cudaErrorNotReady) {
      (void)cudaGetLastError();
      return std::nullopt;
    }
    if (reached != cudaSuccess ||
        cudaEventElapsedTime(&milliseconds, from.event, to.event) != cudaSuccess) {
      (void)cudaGetLastError();
      return HostSeconds(begin, end);
    }
    return static_cast<double>(milliseconds) / 1000;
  }
  bool Reached(const TimeMark& mark) override {
    const auto& at = static_cast<const EventMark&>(mark);
    if (!at.is_recorded) return true;
    // The calling thread stays on this device: going back to the first one, on which it has never
    // been, would make a context there.
    int current = 0;
    if (cudaGetDevice(&current) == cudaSuccess && current != device_.index())
      (void)cudaSetDevice(device_.index());
    const cudaError_t reached = cudaEventQuery(at.event);
    if (reached != cudaSuccess) (void)cudaGetLastError();
    return reached == cudaSuccess;
  }

 private:
  const c10::Device device_;
};
#endif

}  // namespace

std::unique_ptr<DeviceClock> DeviceClock::Create([[maybe_unused]] c10::Device device) {
#ifdef KINO_WITH_CUDA
  if (device.is_cuda()) return std::make_unique<CudaClock>(device);
#endif
  return std::make_unique<HostClock>();
}

}  // namespace kino::engine
