// A client that opens calls only to take them back at once keeps the server busy with nothing
// (CVE-2023-44487, "rapid reset"; gRPC 1.51 bounds open streams, not those). Its connection is
// closed. Thread-safe.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include <functional>
#include <memory>
#include <set>
#include <string>

#include "scheduler/clock.h"
#include "server/frontend/auth/request_rate.h"

namespace kino::frontend {

class ResetGuard {
 public:
  // `close` ends the connection whose other end gRPC calls `peer`; from gRPC's threads. `clock`
  // outlives this.
  ResetGuard(const scheduler::Clock& clock, std::function<void(const std::string& peer)> close);

  // A call of that connection has ended because its client took it back.
  void OnCancelled(const std::string& peer);

  // Whether it is a method of Kino's services. Of gRPC's own, and of unknown ones, the context may
  // be gone before their calls' end is told.
  bool IsOurs(const std::string& method) const { return ours_.contains(method); }

  // For ServerBuilder::experimental().SetInterceptorCreators. The guard outlives the server.
  std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> Interceptors();

 private:
  std::set<std::string> ours_;
  RequestRate rate_;
  const std::function<void(const std::string& peer)> close_;
};

}  // namespace kino::frontend
