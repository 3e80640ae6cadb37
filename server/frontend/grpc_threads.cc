// How many cores gRPC believes in, for this process alone.
//
// gRPC 1.51 sizes its pools (up to two executor threads a core, and pollers) by gpr_cpu_num_cores()
// and has no option for it: on a machine with many cores the frontend would have more threads than
// all its watchers are worth. It needs few, since no thread waits for a watcher. Both functions are
// gRPC's public ones (grpc/support/cpu.h); defined in the executable, they come before those of
// libgpr. They must agree: gRPC uses the second as an index into arrays of the first.
#include <grpc/support/cpu.h>

unsigned gpr_cpu_num_cores() { return 1; }

unsigned gpr_cpu_current_cpu() { return 0; }
