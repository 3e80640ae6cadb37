#include "server/frontend/rpc/reset_guard.h"

#include <grpcpp/server_context.h>

#include <utility>

namespace kino::frontend {
namespace {

using grpc::experimental::InterceptionHookPoints;
using grpc::experimental::InterceptorBatchMethods;
using grpc::experimental::ServerRpcInfo;

// Of one connection, in a second. A proxy may bring many clients' over one; an attack makes some
// ten thousand.
constexpr int64_t kMaxCancelled = 1000;

class CancelledCall : public grpc::experimental::Interceptor {
 public:
  CancelledCall(ResetGuard& guard, grpc::ServerContextBase& call) : guard_(guard), call_(call) {}

  void Intercept(InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_CLOSE) &&
        call_.IsCancelled())
      guard_.OnCancelled(call_.peer());
    batch->Proceed();
  }

 private:
  ResetGuard& guard_;
  grpc::ServerContextBase& call_;
};

class CancelledCalls : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit CancelledCalls(ResetGuard& guard) : guard_(guard) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(ServerRpcInfo* info) override {
    return new CancelledCall(guard_, *info->server_context());
  }

 private:
  ResetGuard& guard_;
};

}  // namespace

ResetGuard::ResetGuard(const scheduler::Clock& clock,
                       std::function<void(const std::string& peer)> close)
    : rate_(kMaxCancelled, clock), close_(std::move(close)) {}

void ResetGuard::OnCancelled(const std::string& peer) {
  if (!rate_.TryTake(peer)) close_(peer);
}

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> ResetGuard::Interceptors() {
  return std::make_unique<CancelledCalls>(*this);
}

}  // namespace kino::frontend
