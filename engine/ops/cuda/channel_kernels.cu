#include "engine/ops/cuda/channel_kernels.h"

#include "engine/core/device_math.cuh"

namespace kino::engine::cuda {
namespace {

constexpr int kRowsPerBlock = kThreads / 32;

__device__ int64_t OutOffset(const Positions& p, int64_t row) {
  const int64_t in_frame = row % (p.height * p.width);
  return row / (p.height * p.width) * p.out_frame + in_frame / p.width * p.out_row +
         in_frame % p.width * p.out_position;
}

// A warp for each position.
template <typename T>
__global__ void RmsNormSiluKernel(const T* x, const T* gain, const T* shift, T* out, Positions p,
                                  float eps) {
  const int64_t row = int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.x / 32;
  if (row >= p.frames * p.height * p.width) return;
  const int64_t lane = threadIdx.x % 32;
  const T* from = x + row * p.channels;
  T* to = out + OutOffset(p, row);
  float squares = 0;
  for (int64_t i = lane; i < p.channels; i += 32) squares += ToFloat(from[i]) * ToFloat(from[i]);
  const float norm = rsqrtf(WarpSum(squares) / static_cast<float>(p.channels) + eps);
  for (int64_t i = lane; i < p.channels; i += 32) {
    float value = Round<T>(ToFloat(from[i]) * norm);
    if (gain != nullptr) {
      value = Round<T>(__fmul_rn(value, ToFloat(gain[i])));
      value = Round<T>(__fadd_rn(value, ToFloat(shift[i])));
    }
    to[i] = FromFloat<T>(Silu(value));
  }
}

// A block of threads for each block of a frame's positions: each thread sums some channels.
template <typename T>
__global__ void MomentsKernel(const T* x, float* moments, Positions p, int64_t blocks) {
  const int64_t frame = blockIdx.x / blocks, block = blockIdx.x % blocks;
  const int64_t positions = p.height * p.width;
  const int64_t at_once = (positions + blocks - 1) / blocks;
  const int64_t first = block * at_once;
  const int64_t last = first + at_once < positions ? first + at_once : positions;
  float* sums = moments + int64_t{blockIdx.x} * 2 * p.channels;
  for (int64_t channel = threadIdx.x; channel < p.channels; channel += kThreads) {
    float sum = 0, squares = 0;
    for (int64_t i = first; i < last; ++i) {
      const float value = ToFloat(x[(frame * positions + i) * p.channels + channel]);
      sum += value;
      squares += value * value;
    }
    sums[channel] = sum;
    sums[p.channels + channel] = squares;
  }
}

// A block of threads for each group of each frame.
template <typename T>
__global__ void AffineKernel(const float* moments, const T* weight, const T* bias, float* affine,
                             Positions p, int64_t blocks, int64_t groups, float eps) {
  const int64_t frame = blockIdx.x / groups, group = blockIdx.x % groups;
  const int64_t in_group = p.channels / groups, first = group * in_group;
  float sum = 0, squares = 0;
  for (int64_t i = threadIdx.x; i < blocks * in_group; i += kThreads) {
    const float* of_block = moments + (frame * blocks + i / in_group) * 2 * p.channels;
    sum += of_block[first + i % in_group];
    squares += of_block[p.channels + first + i % in_group];
  }
  const float count = static_cast<float>(p.height * p.width * in_group);
  const float mean = BlockSum(sum) / count;
  const float variance = fmaxf(0.0f, BlockSum(squares) / count - mean * mean);
  const float inverse = rsqrtf(variance + eps);
  for (int64_t i = first + threadIdx.x; i < first + in_group; i += kThreads) {
    const float gain = inverse * ToFloat(weight[i]);
    affine[frame * 2 * p.channels + i] = gain;
    affine[frame * 2 * p.channels + p.channels + i] = ToFloat(bias[i]) - mean * gain;
  }
}

template <typename T>
__global__ void AffineSiluKernel(const T* x, const float* affine, int64_t frame_step, T* out,
                                 Positions p) {
  const int64_t row = int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.x / 32;
  if (row >= p.frames * p.height * p.width) return;
  const float* gain = affine + row / (p.height * p.width) * frame_step;
  const T* from = x + row * p.channels;
  T* to = out + OutOffset(p, row);
  for (int64_t i = threadIdx.x % 32; i < p.channels; i += 32) {
    to[i] = FromFloat<T>(Silu(Round<T>(ToFloat(from[i]) * gain[i] + gain[p.channels + i])));
  }
}

template <typename T>
__global__ void AffineModulateSiluKernel(const T* x, const float* affine, const T* scale,
                                         const T* shift, T* out, Positions p, Coarse coarse) {
  const int64_t row = int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.x / 32;
  if (row >= p.frames * p.height * p.width) return;
  const int64_t alone = p.frames > 1 && p.frames % 2 == 1 ? 1 : 0;
  const int64_t frame = row / (p.height * p.width), y = row / p.width % p.height;
  const int64_t at_frame =
      frame < alone ? 0 : alone + (frame - alone) * (coarse.frames - alone) / (p.frames - alone);
  const int64_t at = ((at_frame * coarse.height + y * coarse.height / p.height) * coarse.width +
                      row % p.width * coarse.width / p.width) *
                     p.channels;
  const T* from = x + row * p.channels;
  T* to = out + OutOffset(p, row);
  for (int64_t i = threadIdx.x % 32; i < p.channels; i += 32) {
    float value = Round<T>(ToFloat(from[i]) * affine[i] + affine[p.channels + i]);
    value = Round<T>(__fmul_rn(value, ToFloat(scale[at + i])));
    to[i] = FromFloat<T>(Silu(Round<T>(__fadd_rn(value, ToFloat(shift[at + i])))));
  }
}

unsigned RowBlocks(const Positions& p) {
  return static_cast<unsigned>((p.frames * p.height * p.width + kRowsPerBlock - 1) / kRowsPerBlock);
}

}  // namespace

cudaError_t RmsNormSilu(Element element, const void* x, const void* gain, const void* shift,
                        void* out, const Positions& positions, float eps, cudaStream_t stream) {
  if (RowBlocks(positions) == 0) return cudaSuccess;
  return Dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    KINO_LAUNCH(RmsNormSiluKernel<T>, RowBlocks(positions), kThreads, stream)
    (static_cast<const T*>(x), static_cast<const T*>(gain), static_cast<const T*>(shift),
     static_cast<T*>(out), positions, eps);
  });
}

cudaError_t GroupNormAffine(Element element, const void* x, const void* weight, const void* bias,
                            const Positions& positions, int64_t groups, float eps, float* moments,
                            int64_t blocks, float* affine, cudaStream_t stream) {
  if (RowBlocks(positions) == 0) return cudaSuccess;
  return Dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    const auto frames = static_cast<unsigned>(positions.frames);
    KINO_LAUNCH(MomentsKernel<T>, frames * static_cast<unsigned>(blocks), kThreads, stream)
    (static_cast<const T*>(x), moments, positions, blocks);
    KINO_LAUNCH(AffineKernel<T>, frames * static_cast<unsigned>(groups), kThreads, stream)
    (moments, static_cast<const T*>(weight), static_cast<const T*>(bias), affine, positions, blocks,
     groups, eps);
  });
}

cudaError_t AffineSilu(Element element, const void* x, const float* affine, int64_t affines,
                       void* out, const Positions& positions, cudaStream_t stream) {
  if (RowBlocks(positions) == 0) return cudaSuccess;
  const int64_t frame_step = affines == 1 ? 0 : 2 * positions.channels;
  return Dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    KINO_LAUNCH(AffineSiluKernel<T>, RowBlocks(positions), kThreads, stream)
    (static_cast<const T*>(x), affine, frame_step, static_cast<T*>(out), positions);
  });
}

cudaError_t GroupNormModulateSilu(Element element, const void* x, const void* weight,
                                  const void* bias, const void* scale, const void* shift, void* out,
                                  const Positions& positions, const Coarse& coarse, int64_t groups,
                                  float eps, float* moments, int64_t blocks, float* affine,
                                  cudaStream_t stream) {
  if (RowBlocks(positions) == 0) return cudaSuccess;
  Positions tall = positions;
  tall.height *= tall.frames;
  tall.frames = 1;
  return Dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    KINO_LAUNCH(MomentsKernel<T>, static_cast<unsigned>(blocks), kThreads, stream)
    (static_cast<const T*>(x), moments, tall, blocks);
    KINO_LAUNCH(AffineKernel<T>, static_cast<unsigned>(groups), kThreads, stream)
    (moments, static_cast<const T*>(weight), static_cast<const T*>(bias), affine, tall, blocks,
     groups, eps);
    KINO_LAUNCH(AffineModulateSiluKernel<T>, RowBlocks(positions), kThreads, stream)
    (static_cast<const T*>(x), affine, static_cast<const T*>(scale), static_cast<const T*>(shift),
     static_cast<T*>(out), positions, coarse);
  });
}

}  // namespace kino::engine::cuda
