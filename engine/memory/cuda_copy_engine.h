// The CUDA side of CopyEngine. No GPU has run it yet.
#pragma once

#include "engine/memory/copy_engine.h"

namespace kino::engine {

std::unique_ptr<CopyEngine> CreateCudaCopyEngine(c10::Device device);

}  // namespace kino::engine
