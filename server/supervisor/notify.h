// Tells a service manager (systemd with Type=notify, podman) how kinod is, by sd_notify's protocol:
// lines of text in one datagram to $NOTIFY_SOCKET. systemd promises that the protocol stays
// (sd_notify(3), "Notes") and gives such code as an example of its use. libsystemd would bring four
// compression and cryptography libraries into the one process that must not fall.
// One thread at a time.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/supervisor/child.h"

namespace kino::supervisor {

class Notifier {
 public:
  // What no message can reach.
  Notifier() = default;
  // From $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID, which are then removed from the
  // environment: a child that spoke in kinod's name would be believed. Without the first, or with
  // one that cannot be used (which the log tells), nothing is sent.
  static Notifier TakeFromEnvironment();

  bool is_on() const { return socket_.is_open(); }
  // The manager ends a process that is silent for longer; infinite: it does not.
  absl::Duration watchdog() const { return watchdog_; }
  // Never waits: UNAVAILABLE where the message could not be handed over now.
  absl::Status Send(const std::string& lines) const;

 private:
  Fd socket_;
  std::string address_;  // as in sockaddr_un: an abstract one begins with a zero byte
  absl::Duration watchdog_ = absl::InfiniteDuration();
};

}  // namespace kino::supervisor
