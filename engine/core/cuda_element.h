// The element types our CUDA kernels read and write. No torch here, so that nvcc compiles little.
#pragma once

namespace kino::engine::cuda {

enum class Element { kFloat, kHalf, kBFloat16 };

}  // namespace kino::engine::cuda
