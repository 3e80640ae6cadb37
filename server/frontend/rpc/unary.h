// The one way a unary RPC is served: let in on gRPC's thread, checked and done on an executor,
// finished.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <string>
#include <utility>

#include "server/frontend/rpc/context.h"
#include "server/frontend/rpc/errors.h"
#include "server/frontend/rpc/grpc_call.h"
#include "server/frontend/rpc/request_check.h"

namespace kino::frontend {

// What a unary RPC ends with. Called once, from any thread.
using UnaryDone = std::function<void(const absl::Status&)>;

// `work(caller, done)` may use request and response until it calls `done`. A request with fields
// that this server does not know, or that pass their bounds, is refused before; so is a call for
// which the executor has no room (RESOURCE_EXHAUSTED). needed: who may make the call.
template <typename Work>
grpc::ServerUnaryReactor* ServeUnaryAsync(const Context& context, Executor& executor,
                                          grpc::CallbackServerContext* call,
                                          const google::protobuf::Message* request, Work work,
                                          config::Role needed = config::Role::kUse) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  absl::StatusOr<Caller> caller = Admit(context, *call, needed);
  if (!caller.ok()) {
    reactor->Finish(ToGrpc(caller.status()));
    return reactor;
  }
  Executor::Task task = [reactor, request, caller = *caller, work = std::move(work)]() mutable {
    const absl::Status known = CheckEnvelope(*request);
    if (!known.ok()) return reactor->Finish(ToGrpc(known));
    work(caller, [reactor](const absl::Status& status) { reactor->Finish(ToGrpc(status)); });
  };
  if (!executor.TryPost(caller->line, task)) reactor->Finish(ToGrpc(ServerBusy("calls wait")));
  return reactor;
}

// The same for work that returns an absl::Status when it is done: `work(tenant)`.
template <typename Work>
grpc::ServerUnaryReactor* ServeUnary(const Context& context, Executor& executor,
                                     grpc::CallbackServerContext* call,
                                     const google::protobuf::Message* request, Work work,
                                     config::Role needed = config::Role::kUse) {
  return ServeUnaryAsync(
      context, executor, call, request,
      [work = std::move(work)](const Caller& caller, const UnaryDone& done) mutable {
        done(work(caller.tenant));
      },
      needed);
}

}  // namespace kino::frontend
