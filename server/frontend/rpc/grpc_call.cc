#include "server/frontend/rpc/grpc_call.h"

#include <string>
#include <utility>

#include "server/convert/trace_context.h"
#include "server/frontend/rpc/errors.h"
#include "server/frontend/tls/listener_credentials.h"

namespace kino::frontend {

namespace {

std::string MetadataOf(const grpc::CallbackServerContext& call, const char* key) {
  const auto& metadata = call.client_metadata();
  const auto found = metadata.find(key);
  if (found == metadata.end()) return "";
  return std::string(found->second.data(), found->second.size());
}

}  // namespace

absl::StatusOr<Caller> Admit(const Context& context, const grpc::CallbackServerContext& call,
                             config::Role needed) {
  absl::StatusOr<Caller> caller =
      context.admission.Admit({.authorization = MetadataOf(call, "authorization"),
                               .peer = call.peer(),
                               .certificate_names = CertificateNames(*call.auth_context())},
                              needed);
  if (!caller.ok()) return caller;
  if (std::string parent = MetadataOf(call, "traceparent"); convert::IsTraceparent(parent))
    caller->traceparent = std::move(parent);
  return caller;
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status wire = ToShortWireStatus(status);
  return {static_cast<grpc::StatusCode>(wire.code()), wire.message(), wire.SerializeAsString()};
}

}  // namespace kino::frontend
