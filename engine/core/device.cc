#include "engine/core/device.h"

#include <ATen/Context.h>
#include <dlfcn.h>

#include <algorithm>
#include <charconv>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/core/machine.h"
#include "engine/core/memory_counter.h"
#include "engine/core/per_device.h"

#ifdef KINO_WITH_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>
#endif

namespace kino::engine {

absl::StatusOr<c10::Device> OpenDevice(const std::string& name) {
  if (name == "cpu") return c10::Device(c10::DeviceType::CPU);
  int index = 0;
  const bool is_cuda = absl::StartsWith(name, "cuda");
  bool valid = is_cuda && (name.size() == 4 || name[4] == ':');
  if (valid && name.size() > 4) {
    const auto [end, error] = std::from_chars(name.data() + 5, name.data() + name.size(), index);
    valid = error == std::errc() && end == name.data() + name.size() && index >= 0 && index < 128;
  }
  if (!valid) {
    return absl::InvalidArgumentError(
        absl::StrCat("device '", name, "', expected 'cpu' or 'cuda:N'"));
  }
#ifdef KINO_WITH_CUDA
  // libtorch_cuda registers its kernels when it is loaded; nothing here refers to its symbols.
  static void* const library = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("device '", name, "': ", dlerror()));
  }
  const int count = c10::cuda::device_count();
  if (index >= count) {
    return absl::FailedPreconditionError(
        absl::StrCat("device '", name, "': this machine has ", count, " CUDA devices"));
  }
  // Before the allocator is asked for statistics, which it has none of until then.
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  const cudaError_t error = c10::cuda::SetDevice(static_cast<c10::DeviceIndex>(index));
  if (error != cudaSuccess) {
    (void)cudaGetLastError();  // taken note of here
    return absl::FailedPreconditionError(
        absl::StrCat("device '", name, "' cannot be used: ", cudaGetErrorString(error)));
  }
  return c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
#else
  return absl::FailedPreconditionError(absl::StrCat("device '", name, "': this build has no CUDA"));
#endif
}

#ifdef KINO_WITH_CUDA
namespace {

const cudaDeviceProp& PropertiesOf(c10::Device device) {
  static PerDevice<cudaDeviceProp> kept;
  return kept.Get(device.index(), [&device] {
    cudaDeviceProp properties{};
    C10_CUDA_CHECK(cudaGetDeviceProperties(&properties, device.index()));
    return properties;
  });
}

}  // namespace
#endif

DeviceInfo GetDeviceInfo(c10::Device device) {
#ifdef KINO_WITH_CUDA
  if (device.is_cuda()) {
    const c10::cuda::CUDAGuard guard(device);
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    C10_CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
    const int64_t reserved =
        c10::cuda::CUDACachingAllocator::getDeviceStats(device.index()).reserved_bytes[0].current;
    return {.name = PropertiesOf(device).name,
            .total_bytes = static_cast<int64_t>(total_bytes),
            .available_bytes = std::min(static_cast<int64_t>(free_bytes) + reserved,
                                        static_cast<int64_t>(total_bytes)),
            .used_bytes = static_cast<int64_t>(total_bytes - free_bytes)};
  }
#endif
  return {.name = "cpu",
          .total_bytes = UsableMemoryBytes(),
          .available_bytes = UsableMemoryBytes(),
          .used_bytes = HostMemoryCount().live_bytes};
}

int64_t DevicePeakBytes(c10::Device device) {
#ifdef KINO_WITH_CUDA
  if (device.is_cuda()) {
    return c10::cuda::CUDACachingAllocator::getDeviceStats(device.index()).allocated_bytes[0].peak;
  }
#endif
  return HostMemoryCount().peak_bytes;
}

void ResetDevicePeak(c10::Device device) {
#ifdef KINO_WITH_CUDA
  if (device.is_cuda()) {
    c10::cuda::CUDACachingAllocator::resetPeakStats(device.index());
    return;
  }
#endif
  ResetHostMemoryPeak();
}

void LimitDeviceMemory(c10::Device device, int64_t bytes) {
#ifdef KINO_WITH_CUDA
  if (device.is_cuda()) {
    double fraction = 1.0;
    if (bytes > 0) {
      const auto total = static_cast<double>(PropertiesOf(device).totalGlobalMem);
      fraction = std::min(1.0, static_cast<double>(bytes) / total);
    }
    c10::cuda::CUDACachingAllocator::setMemoryFraction(fraction, device.index());
    return;
  }
#endif
  SetHostMemoryLimit(bytes);
}

void KeepFloat32() {
  at::globalContext().setAllowTF32CuDNN(false);
  at::globalContext().setAllowTF32CuBLAS(false);
}

void ReleaseCachedMemory(c10::Device device) {
#ifdef KINO_WITH_CUDA
  if (device.is_cuda()) c10::cuda::CUDACachingAllocator::emptyCache();
#else
  (void)device;
#endif
}

}  // namespace kino::engine
