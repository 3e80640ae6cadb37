// Convolutions over videos kept channels last, [T, H, W, C]. Pure functions.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/core/stride3d.h"

namespace kino::engine {

// What is around height and width.
enum class SpacePadding {
  kZeros,  // half the kernel of zeros
  kNone,   // nothing: the input is padded already
};

// A convolution without padding in time. On the CPU the weight is put in oneDNN's order for this
// one call: for wide layers that takes as long as several frames, so give it runs of them. bfloat16
// and float16 on a CPU without instructions for them are computed in float32 and rounded once.
// x: [T, H, W, C], weight: [D, C, kt, kh, kw], bias: [D] -> [(T - kt) / t + 1, ..., D].
at::Tensor Conv3d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  const Stride3d& stride, SpacePadding pads = SpacePadding::kZeros);

// Elements of a weight that are put in oneDNN's order at a time, and so how many of its output
// channels.
inline constexpr int64_t kPackedElements = int64_t{1} << 23;
int64_t PackedChannels(int64_t weight_elements, int64_t channels);

}  // namespace kino::engine
