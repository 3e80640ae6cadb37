// The CUDA side of Transport: pinned host memory, a copy stream, events. No GPU has run it yet.
#pragma once

#include "engine/memory/transport.h"

namespace kino::engine {

std::unique_ptr<Transport> CreateCudaTransport(c10::Device device);

}  // namespace kino::engine
