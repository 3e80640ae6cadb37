// One child process: started by fork and exec (the supervisor has no threads), watched by its
// pidfd, killed with its parent (PR_SET_PDEATHSIG). One thread at a time; a Child owns its pidfd.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace kino::supervisor {

// Owns a file descriptor.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() { Reset(); }
  Fd(Fd&& other) noexcept : fd_(other.Release()) {}
  Fd& operator=(Fd&& other) noexcept;
  int get() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }
  int Release();
  void Reset();

 private:
  int fd_ = -1;
};

// How a process ended.
struct ExitReport {
  int signal = 0;  // or 0
  int exit_code = 0;
  // "exit code 1", "signal 11 (Segmentation fault)"
  std::string Text() const;
};

struct Child {
  pid_t pid = -1;
  Fd pidfd;
};

// `argv[0]` is the executable's path. When `inherited_fd` is not -1 the child gets it as descriptor
// 3 and nothing else but standard input (empty), output and error.
absl::StatusOr<Child> SpawnChild(const std::vector<std::string>& argv, int inherited_fd);

// Collects the child. REQUIRES: its pidfd is readable.
ExitReport CollectChild(const Child& child);

// No effect once the child has been collected.
void SignalChild(const Child& child, int signal);

}  // namespace kino::supervisor
