// Makes the order that gRPC's callbacks come in visible to the thread sanitizer where the system's
// gRPC was built without it: what a thread did before it started a batch of operations comes before
// the batch's callback. Linked into a thread-sanitized executable, this takes the place of the
// shared library's grpc_call_start_batch, which the callback API starts every batch with. Compiled
// with -fno-access-control, to know a callback's tag by its function.
#include <dlfcn.h>
#include <grpcpp/grpcpp.h>
#include <sanitizer/tsan_interface.h>

#include <cstdio>
#include <cstdlib>

namespace {

using Tag = grpc::internal::CallbackWithSuccessTag;

void Run(grpc_completion_queue_functor* functor, int ok) {
  __tsan_acquire(functor);
  Tag::StaticRun(functor, ok);
}

}  // namespace

extern "C" grpc_call_error grpc_call_start_batch(grpc_call* call, const grpc_op* ops, size_t count,
                                                 void* tag, void* reserved) {
  static const auto real = [] {
    void* const found = dlsym(RTLD_NEXT, "grpc_call_start_batch");
    if (found == nullptr) {
      std::fprintf(stderr, "gRPC's shared library has no 'grpc_call_start_batch'\n");
      std::abort();
    }
    return reinterpret_cast<decltype(&grpc_call_start_batch)>(found);
  }();
  // The first word of a tag of another kind is its table of virtual functions.
  auto* const functor = static_cast<grpc_completion_queue_functor*>(tag);
  if (functor != nullptr &&
      (functor->functor_run == &Tag::StaticRun || functor->functor_run == &Run)) {
    functor->functor_run = &Run;
    __tsan_release(functor);
  }
  return real(call, ops, count, tag, reserved);
}
