// Counts live tensor bytes on the host: an allocator put in front of torch's. Thread-safe.
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

}  // namespace kino::engine
