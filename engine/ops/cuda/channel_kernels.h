// The VAEs' norms with SiLU on CUDA, on frames kept channels last. Sums are float32, rounding
// points the composed forms'. No torch here, so that nvcc compiles little. Launches are
// asynchronous on `stream`. No GPU has run them yet.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "engine/ops/cuda/row_kernels.h"

namespace kino::engine::cuda {

// Frames [T, H, W, C], contiguous, and where the results go: elements from one frame, one row of
// pixels, one position to the next.
struct Positions {
  int64_t frames = 0, height = 0, width = 0, channels = 0;
  int64_t out_frame = 0, out_row = 0, out_position = 0;
};

// out = SiLU(rms_norm(x) * gain + shift); gain and shift, [C], may both be nullptr.
cudaError_t RmsNormSilu(Element element, const void* x, const void* gain, const void* shift,
                        void* out, const Positions& positions, float eps, cudaStream_t stream);

// group_norm(x) * weight + bias of each frame as x * gain + shift.  moments: float32 [T, blocks, 2,
// C], scratch; affine: float32 [T, 2, C], gains and shifts.
cudaError_t GroupNormAffine(Element element, const void* x, const void* weight, const void* bias,
                            const Positions& positions, int64_t groups, float eps, float* moments,
                            int64_t blocks, float* affine, cudaStream_t stream);

// out = SiLU(x * gain + shift).  affine: float32 [affines, 2, C], of each frame, or one for all.
cudaError_t AffineSilu(Element element, const void* x, const float* affine, int64_t affines,
                       void* out, const Positions& positions, cudaStream_t stream);

// A lower resolution: so many positions, each of which stands for as many of the frames.
struct Coarse {
  int64_t frames = 0, height = 0, width = 0;
};

// out = SiLU((group_norm(x) * weight + bias) * scale + shift), the norm over all frames; scale,
// shift: [coarse positions, C]. Of an odd number of frames above 1 the first has coarse frame 0 to
// itself. moments: [1, blocks, 2, C], affine: [1, 2, C], as above.
cudaError_t GroupNormModulateSilu(Element element, const void* x, const void* weight,
                                  const void* bias, const void* scale, const void* shift, void* out,
                                  const Positions& positions, const Coarse& coarse, int64_t groups,
                                  float eps, float* moments, int64_t blocks, float* affine,
                                  cudaStream_t stream);

}  // namespace kino::engine::cuda
