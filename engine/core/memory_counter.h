// Counts live tensor bytes on the host, by an allocator put in front of torch's, and the weights
// among the device's bytes, as engine/memory tells of them. Thread-safe.
#pragma once

#include <cstdint>

namespace kino::engine {

struct MemoryCount {
  int64_t live_bytes = 0;
  int64_t peak_bytes = 0;
};

// Puts the counting allocator in front of torch's CPU allocator, once per process. Tensors
// allocated before are not counted. oneDNN's own scratch memory is not either.
void InstallMemoryCounter();

MemoryCount HostMemoryCount();
// The peak starts again from what is live now.
void ResetHostMemoryPeak();

// From now on an allocation of tensors beyond so many live bytes throws c10::OutOfMemoryError; 0:
// no limit.
void SetHostMemoryLimit(int64_t bytes);

// Host memory that does not come from torch's CPU allocator (page-locked slabs): before it is
// allocated, which the limit may forbid, and, negative, once it is freed.
void CountHostMemory(int64_t delta);

// Bytes of weights on the compute device: slots and resident copies; weights used in a mapped file
// are no copies. engine/memory adds and, with a negative `delta`, takes away.
void CountDeviceWeights(int64_t delta);
MemoryCount DeviceWeightCount();
void ResetDeviceWeightPeak();

}  // namespace kino::engine
