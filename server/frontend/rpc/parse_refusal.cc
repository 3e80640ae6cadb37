#include "server/frontend/rpc/parse_refusal.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/frontend/rpc/errors.h"
#include "server/frontend/rpc/grpc_call.h"

namespace kino::frontend {
namespace {

using grpc::experimental::InterceptionHookPoints;
using grpc::experimental::InterceptorBatchMethods;
using grpc::experimental::ServerRpcInfo;

class ParseRefusal : public grpc::experimental::Interceptor {
 public:
  explicit ParseRefusal(std::string method) : method_(std::move(method)) {}

  void Intercept(InterceptorBatchMethods* batch) override {
    // Of a method that takes one message, there is one, unless its bytes were not taken for it.
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_MESSAGE)) {
      is_broken_ = batch->GetRecvMessage() == nullptr;
    }
    if (is_broken_ && batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      batch->ModifySendStatus(ToGrpc(WithErrorInfo(
          absl::InvalidArgumentError(absl::StrCat(
              "the request does not parse as ", method_,
              " takes it: each text has to be UTF-8, and the whole a message of its type")),
          "MALFORMED_MESSAGE")));
    }
    batch->Proceed();
  }

 private:
  const std::string method_;
  bool is_broken_ = false;
};

class ParseRefusalFactory : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  grpc::experimental::Interceptor* CreateServerInterceptor(ServerRpcInfo* info) override {
    // A stream of requests ends without a message too; there our own code answers.
    const bool is_single = info->type() == ServerRpcInfo::Type::UNARY ||
                           info->type() == ServerRpcInfo::Type::SERVER_STREAMING;
    return is_single ? new ParseRefusal(info->method()) : nullptr;
  }
};

}  // namespace

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> ParseRefusals() {
  return std::make_unique<ParseRefusalFactory>();
}

}  // namespace kino::frontend
