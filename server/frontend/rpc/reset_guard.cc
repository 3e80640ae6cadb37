#include "server/frontend/rpc/reset_guard.h"

#include <grpcpp/server_context.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "kino/v1/models.pb.h"
#include "kino/v1/video.pb.h"

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
    if (!guard_.IsOurs(info->method())) return nullptr;
    return new CancelledCall(guard_, *info->server_context());
  }

 private:
  ResetGuard& guard_;
};

}  // namespace

ResetGuard::ResetGuard(const scheduler::Clock& clock,
                       std::function<void(const std::string& peer)> close)
    : rate_(kMaxCancelled, clock), close_(std::move(close)) {
  for (const google::protobuf::FileDescriptor* file :
       {v1::Job::descriptor()->file(), v1::Model::descriptor()->file()}) {
    for (int i = 0; i < file->service_count(); ++i) {
      const google::protobuf::ServiceDescriptor& service = *file->service(i);
      for (int k = 0; k < service.method_count(); ++k)
        ours_.insert(absl::StrCat("/", service.full_name(), "/", service.method(k)->name()));
    }
  }
}

void ResetGuard::OnCancelled(const std::string& peer) {
  if (!rate_.TryTake(peer)) close_(peer);
}

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> ResetGuard::Interceptors() {
  return std::make_unique<CancelledCalls>(*this);
}

}  // namespace kino::frontend
