// Gives up, for the rest of the process, everything a decoder does not need: memory, processor
// time, output and files beyond limits, new privileges, the network, and all system calls but a
// short list (reading, writing and seeking what is open, memory that is not executable, locks,
// clocks, ending). So what a hostile file can reach through a fault in a decoder is one output file
// and one line of text. Linux only. Call once, with one thread, before the input is read.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "absl/status/status.h"

namespace kino::media {

struct SandboxLimits {
  int64_t memory_bytes = 0;  // of address space, on top of what the program has when it enters
  int cpu_seconds = 0;
  int64_t file_bytes = 0;  // the largest file it may write
  // Ends with this process, its parent, however that ends; 0: goes on without.
  pid_t parent = 0;
};

// INTERNAL when a limit or the system call filter cannot be set, CANCELLED when the parent has
// ended already: the caller must not go on. Where the kernel grants no new network namespace, that
// step alone is left out; the filter denies sockets in any case.
absl::Status EnterSandbox(const SandboxLimits& limits);

}  // namespace kino::media
