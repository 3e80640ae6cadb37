#include "server/frontend/rpc/grpc_call.h"

#include <string>

#include "server/frontend/rpc/errors.h"

namespace kino::frontend {

absl::StatusOr<Caller> Admit(const Context& context, const grpc::CallbackServerContext& call) {
  CallOrigin origin{.authorization = "", .peer = call.peer()};
  const auto& metadata = call.client_metadata();
  const auto found = metadata.find("authorization");
  if (found != metadata.end()) {
    origin.authorization = std::string(found->second.data(), found->second.size());
  }
  return context.admission.Admit(origin);
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status wire = ToShortWireStatus(status);
  return {static_cast<grpc::StatusCode>(wire.code()), wire.message(), wire.SerializeAsString()};
}

}  // namespace kino::frontend
