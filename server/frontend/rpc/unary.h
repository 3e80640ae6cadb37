// The one way a unary RPC is served: authenticate on gRPC's thread, do the work on an executor,
// finish.
#pragma once

#include <grpcpp/grpcpp.h>

#include <string>
#include <utility>

#include "server/convert/status.h"
#include "server/frontend/rpc/context.h"
#include "server/frontend/rpc/errors.h"
#include "server/frontend/rpc/request_check.h"

namespace kino::frontend {

// `work(tenant)` returns an absl::Status and may use request and response until it does. A request
// with fields that this server does not know is refused before.
template <typename Work>
grpc::ServerUnaryReactor* ServeUnary(const Context& context, Executor& executor,
                                     grpc::CallbackServerContext* call,
                                     const google::protobuf::Message* request, Work work) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  absl::StatusOr<std::string> tenant = TenantOf(context, *call);
  if (!tenant.ok()) {
    reactor->Finish(ToGrpc(tenant.status()));
    return reactor;
  }
  executor.Post([reactor, request, tenant = *std::move(tenant), work = std::move(work)]() mutable {
    std::vector<engine::FieldViolation> violations;
    CheckEnvelope(*request, violations);
    const absl::Status known = convert::InvalidRequest(violations);
    reactor->Finish(ToGrpc(known.ok() ? work(tenant) : known));
  });
  return reactor;
}

}  // namespace kino::frontend
