// Pixels as bytes on CUDA (video_frames.h). No torch here, so that nvcc compiles little. Launches
// are asynchronous on `stream`. No GPU has run it yet.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "engine/core/cuda_element.h"

namespace kino::engine::cuda {

// count numbers, any of them.
cudaError_t FramesAsBytes(Element element, const void* pixels, uint8_t* bytes, int64_t count,
                          cudaStream_t stream);

}  // namespace kino::engine::cuda
