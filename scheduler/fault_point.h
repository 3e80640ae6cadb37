// Named places at which a test can stop or end this process, to hold a window open that a kill at a
// random moment does not hit. Only in builds with tests; elsewhere they are nothing.
//
// KINO_FAULT_POINTS names a folder. Where it holds a file of a point's name when that point is
// reached, the file is taken away (one process takes it, once) and what it says is done: "kill"
// (SIGKILL), "abort", "stop" (SIGSTOP, until somebody continues the process). Thread-safe.
#pragma once

namespace kino::scheduler {

#ifdef KINO_WITH_FAULT_POINTS
void ReachFaultPoint(const char* name);
#define KINO_FAULT_POINT(name) ::kino::scheduler::ReachFaultPoint(name)
#else
#define KINO_FAULT_POINT(name) static_cast<void>(0)
#endif

}  // namespace kino::scheduler
