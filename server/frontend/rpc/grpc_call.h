// Between gRPC's calls and what knows no gRPC: who calls, and how an error is told. Free functions;
// none blocks.
#pragma once

#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/frontend/auth/admission.h"
#include "server/frontend/rpc/context.h"

namespace kino::frontend {

// Admission::Admit for a gRPC call.
absl::StatusOr<Caller> Admit(const Context& context, const grpc::CallbackServerContext& call,
                             config::Role needed = config::Role::kUse);

grpc::Status ToGrpc(const absl::Status& status);

}  // namespace kino::frontend
