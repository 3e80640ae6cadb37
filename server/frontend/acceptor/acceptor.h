// Accepts connections for a server that is not let near the listening socket: it counts them, and
// knows who is at the other end. gRPC 1.51 does neither, and a flood of connections would take the
// descriptors that jobs need.
//
// Thread-safe. Owns its sockets and one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace kino::frontend {

struct AcceptorLimits {
  // Open at a time, of all and of one IP address. One more is closed at once.
  int connections = 1;
  int connections_per_address = 1;
};

// Takes the connection's descriptor over. Called on the acceptor's thread.
using TakeConnection = std::function<void(int fd)>;

class Acceptor {
 public:
  // Listens on host:port or [host]:port, on every address that the name has; port 0 takes a free
  // one. INVALID_ARGUMENT: no such host or port. UNAVAILABLE: an address cannot be listened on.
  static absl::StatusOr<std::unique_ptr<Acceptor>> ListenTcp(const std::string& address,
                                                             const AcceptorLimits& limits);
  // A socket in the file system, mode 0600, in place of whatever lies there. Only processes of this
  // one's user, and root's, are let in. Errors as above.
  static absl::StatusOr<std::unique_ptr<Acceptor>> ListenUnix(const std::string& path,
                                                              const AcceptorLimits& limits);
  // Stops.
  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  // Until then connections wait in the system's queue. REQUIRES: called once.
  void Start(TakeConnection take);
  // Closes the listening sockets; connections that were taken go on. `take` is not called any more.
  void Stop();

  // Ends the connections whose other end is `peer`, in gRPC's words ("ipv4:127.0.0.1:4000",
  // "ipv6:%5B::1%5D:4000"). False: there is none, or it has been closed already.
  bool Close(const std::string& peer);

  // Connections that are open.
  int open() const;

  // With the port that was taken; 0 for a socket in the file system.
  int port() const { return port_; }

 private:
  class Descriptor;
  struct Connection;
  explicit Acceptor(const AcceptorLimits& limits);

  absl::Status Listen(int family, int type, int protocol, const void* address, uint32_t size);
  absl::Status Watch(int fd, uint32_t events);
  void Loop();
  void Accept(int listener);
  // Why the connection is not let in; empty: it is.
  std::string Refusal(int fd, const std::string& address) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // False: it is a listener.
  bool Forget(int fd);

  const AcceptorLimits limits_;
  bool is_local_ = false;  // a socket in the file system
  uint16_t port_ = 0;
  std::vector<std::unique_ptr<Descriptor>> listeners_;
  std::unique_ptr<Descriptor> epoll_;
  std::unique_ptr<Descriptor> stop_;  // an eventfd
  TakeConnection take_;
  int64_t refused_ = 0;  // the thread's
  mutable absl::Mutex mutex_;
  // What is open, by our copy of the descriptor, and how many of each address.
  std::map<int, std::unique_ptr<Connection>> open_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int> open_of_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace kino::frontend
