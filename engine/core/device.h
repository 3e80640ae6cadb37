// The compute device by name. CUDA is opened at run time, so that a CPU run neither loads nor needs
// it.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "c10/core/Device.h"

namespace kino::engine {

// "cpu" or "cuda:N". INVALID_ARGUMENT: another name. FAILED_PRECONDITION: a build without CUDA, no
// CUDA libraries, or no such device; the message says which.
absl::StatusOr<c10::Device> OpenDevice(const std::string& name);

struct DeviceInfo {
  std::string name;
  // On the CPU: what this process may use of the host's (core/machine.h).
  int64_t total_bytes = 0;
  // That tensors of this process can have, those that live included. On a GPU what is free now and
  // what its allocator holds: not what the context and other processes take. On the CPU the total.
  int64_t available_bytes = 0;
  // On a GPU by all processes, on the CPU by tensors of this one.
  int64_t used_bytes = 0;
};
DeviceInfo GetDeviceInfo(c10::Device device);

// Peak and live bytes of tensors on `device`: the CUDA caching allocator's, or the host counter's
// for the CPU.
int64_t DevicePeakBytes(c10::Device device);
void ResetDevicePeak(c10::Device device);
// Tensors beyond so many bytes are out of memory from now on (on CUDA: what the caching allocator
// reserves); 0: no limit but the device's own.
void LimitDeviceMemory(c10::Device device, int64_t bytes);
// Float32 is computed as float32, on every device: convolutions on a GPU would round to TF32.
void KeepFloat32();
// Gives back what the device's allocator keeps for later.
void ReleaseCachedMemory(c10::Device device);

}  // namespace kino::engine
