// gRPC answers a request that does not parse before any code of ours runs, with UNIMPLEMENTED and
// no word. This turns that answer into INVALID_ARGUMENT, which says what is wrong. Thread-safe.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include <memory>

namespace kino::frontend {

// For ServerBuilder::experimental().SetInterceptorCreators.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> ParseRefusals();

}  // namespace kino::frontend
