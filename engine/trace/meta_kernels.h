// Meta kernels of the operators that our networks call and torch has none for in C++.
#pragma once

namespace kino::engine {

// Registers them with torch, once per process. Thread-safe.
void InstallMetaKernels();

}  // namespace kino::engine
