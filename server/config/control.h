// What kinod and kino-frontend say to each other over the inherited socketpair (SOCK_SEQPACKET, one
// message per packet, plain text): kinod tells of workers that started and ended, the frontend asks
// for a stuck worker to be killed. Free functions over values; thread-safe.
#pragma once

#include <string>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kino::config {

// The exit code by which a child says that no restart will help (a configuration it cannot use);
// the frontend's ends kinod, which exits with it as well.
inline constexpr int kExitUnusable = 78;

struct WorkerStarted {
  std::string worker;
  int pid = 0;
};

struct WorkerExited {
  std::string worker;
  int pid = 0;
  int signal = 0;     // the signal that ended it, or 0
  int exit_code = 0;  // when signal is 0
};

struct KillWorker {
  std::string worker;
  int pid = 0;
};

// kinod stops everything: the workers are told to end, too, so their attempts are interrupted, not
// lost.
struct MachineStopping {};

using ControlMessage = std::variant<WorkerStarted, WorkerExited, KillWorker, MachineStopping>;

std::string EncodeControl(const ControlMessage& message);
absl::StatusOr<ControlMessage> DecodeControl(const std::string& packet);

// One packet out. UNAVAILABLE: the other end is gone. RESOURCE_EXHAUSTED: it does not read (the
// socket is non-blocking).
absl::Status SendControl(int fd, const ControlMessage& message);
// One packet in. UNAVAILABLE: the other end is gone. NOT_FOUND: nothing to read now (non-blocking
// socket).
absl::StatusOr<ControlMessage> ReceiveControl(int fd);

}  // namespace kino::config
