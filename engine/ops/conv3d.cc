#include "engine/ops/conv3d.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mkldnn_reorder_conv3d_weight.h>

#include <algorithm>

#include "engine/core/kernel_counter.h"
#include "engine/core/trace.h"
#include "engine/ops/linear.h"

namespace kino::engine {
namespace {

// How a convolution moves over its input.
struct Moves {
  Moves(const at::Tensor& weight, const Stride3d& stride, SpacePadding pads)
      : strides{stride.t, stride.h, stride.w} {
    if (pads == SpacePadding::kZeros) padding = {0, weight.size(3) / 2, weight.size(4) / 2};
  }
  int64_t outputs(const at::Tensor& input, const at::Tensor& weight, size_t axis) const {
    const int64_t dim = static_cast<int64_t>(axis) + 2;
    return (input.size(dim) + 2 * padding[axis] - weight.size(dim)) / strides[axis] + 1;
  }

  std::vector<int64_t> strides;
  std::vector<int64_t> padding = {0, 0, 0};
};

// On meta tensors: what a convolution gives, channels last.
at::Tensor OutputOnMeta(const at::Tensor& input, const at::Tensor& weight, const Moves& moves) {
  std::vector<int64_t> shape = {1, weight.size(0)};
  for (const size_t axis : {0, 1, 2}) shape.push_back(moves.outputs(input, weight, axis));
  return at::empty(shape, input.options(), at::MemoryFormat::ChannelsLast3d);
}

// oneDNN's scratch memory, which it takes from torch's allocator; measured with oneDNN 3.10.
at::Tensor ScratchOnMeta(const at::Tensor& input, const at::Tensor& weight, const Moves& moves) {
  const int64_t taps = weight.size(2) * weight.size(3) * weight.size(4);
  const int64_t outputs = moves.outputs(input, weight, 1) * moves.outputs(input, weight, 2);
  int64_t elements = 0;
  if (!CpuOf(input).avx) {
    // One frame's inputs gathered, and the whole input with its channels first.
    elements = outputs * weight.size(1) * taps + input.numel();
  } else if (CpuOf(input).amx && input.scalar_type() == at::kBFloat16) {
    // Each thread copies some padded frames in whole tiles of channels, fewer without strides.
    constexpr int64_t kChannels = 32, kTiles = 8192;
    const bool has_stride = moves.strides != std::vector<int64_t>{1, 1, 1};
    const int64_t most = int64_t{has_stride ? 128 : 48} << 10;
    const int64_t channels = (input.size(1) + kChannels - 1) / kChannels * kChannels;
    const int64_t frames = weight.size(2) * (input.size(3) + 2 * moves.padding[1]) *
                           (input.size(4) + 2 * moves.padding[2]) * channels;
    elements = Trace::Current()->target().threads * (std::min(frames, most) + kTiles);
  }
  return at::empty({elements}, input.options());
}

// The weight channels last, as cuDNN takes it, and the output, to which torch adds the bias.
at::Tensor ConvolveOnMetaGpu(const at::Tensor& input, const at::Tensor& weight,
                             const at::Tensor& bias, const Moves& moves, double flops) {
  // What cuDNN's caller goes by.
  TORCH_CHECK(input.suggest_memory_format() == at::MemoryFormat::ChannelsLast3d,
              "a convolution's input of ", input.sizes(), " has the strides ", input.strides(),
              ", expected channels last");
  const at::Tensor reordered = at::empty(weight.sizes(), weight.options());
  CountKernel({weight}, {reordered});
  at::Tensor out = OutputOnMeta(input, weight, moves);
  CountKernel({input, reordered}, {out}, flops);
  CountKernel({out, bias}, {out});
  return out;
}

// A copy of `weight` in the order oneDNN likes best for inputs of `shape`, [1, C, T, H, W].
// at::conv3d gets there by way of one more order, several times slower.
at::Tensor Packed(const at::Tensor& weight, const Moves& moves, at::IntArrayRef shape) {
  if (weight.is_meta()) {
    const at::Tensor dense = at::empty(weight.sizes(), weight.options());
    if (!CpuOf(weight).avx) return at::empty(weight.sizes(), weight.options());
    // oneDNN fills whole vectors of channels.
    std::vector<int64_t> padded = weight.sizes().vec();
    for (const size_t axis : {0, 1}) padded[axis] = (padded[axis] + 15) / 16 * 16;
    return at::empty(padded, weight.options());
  }
  return at::mkldnn_reorder_conv3d_weight(weight.to_mkldnn(), moves.padding, moves.strides,
                                          {1, 1, 1}, 1, shape);
}

// A view: [T, H, W, C] -> [1, C, T, H, W], channels last in memory. And back. The batch is made
// first, since torch sees channels last by all strides, the batch's among them.
at::Tensor Batch(const at::Tensor& x) { return x.unsqueeze(0).permute({0, 4, 1, 2, 3}); }
at::Tensor Frames(const at::Tensor& x) { return x.squeeze(0).permute({1, 2, 3, 0}).contiguous(); }

// The one operator of torch that takes dense frames and a packed weight; torch's own compiler uses
// it.
at::Tensor PackedConvolution(const at::Tensor& input, const at::Tensor& packed,
                             const at::Tensor& bias, const Moves& moves) {
  using Signature =
      at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                 at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, int64_t, std::string_view,
                 c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mkldnn::_convolution_pointwise", "")
                             .typed<Signature>();
  const std::vector<int64_t> dilation = {1, 1, 1};
  return op.call(input, packed, bias, moves.padding, moves.strides, dilation, 1, "none",
                 c10::List<std::optional<at::Scalar>>(), std::nullopt);
}

// Some output channels after the others, so that little of the weight is packed at a time.
at::Tensor ConvolvePacked(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          const Moves& moves) {
  const at::Tensor input = Batch(x);
  const auto convolve = [&](int64_t first, int64_t count) {
    const at::Tensor part = weight.narrow(0, first, count);
    const at::Tensor packed = Packed(part, moves, input.sizes());
    if (x.is_meta()) {
      const at::Tensor scratch = ScratchOnMeta(input, part, moves);
      return Frames(OutputOnMeta(input, part, moves));
    }
    return Frames(PackedConvolution(input, packed, bias.narrow(0, first, count), moves));
  };
  const int64_t channels = weight.size(0), most = PackedChannels(weight.numel(), channels);
  if (most >= channels) return convolve(0, channels);
  at::Tensor output;
  for (int64_t first = 0; first < channels; first += most) {
    const int64_t count = std::min(most, channels - first);
    const at::Tensor part = convolve(first, count);
    if (!output.defined()) {
      output = at::empty({part.size(0), part.size(1), part.size(2), channels}, part.options());
    }
    output.narrow(3, first, count).copy_(part);
  }
  return output;
}

}  // namespace

int64_t PackedChannels(int64_t weight_elements, int64_t channels) {
  constexpr int64_t kVector = 16;
  if (weight_elements <= kPackedElements) return channels;
  return std::max(kVector, kPackedElements / (weight_elements / channels) / kVector * kVector);
}

at::Tensor Conv3d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  const Stride3d& stride, SpacePadding pads) {
  if (weight.size(2) * weight.size(3) * weight.size(4) * stride.product() == 1) {
    CountFlops(FlopKind::kConvolution,
               2.0 * static_cast<double>(x.numel()) * static_cast<double>(weight.size(0)));
    return Linear(x, weight.view({weight.size(0), weight.size(1)}), bias);
  }
  // oneDNN's order is for float32 and bfloat16.
  if (ComputesInFloat(x) || (RunsOnCpu(x) && x.scalar_type() == at::kHalf)) {
    return Conv3d(x.to(at::kFloat), weight.to(at::kFloat), bias.to(at::kFloat), stride, pads)
        .to(x.scalar_type());
  }
  const Moves moves(weight, stride, pads);
  const at::Tensor input = Batch(x);
  double flops = 2.0 * static_cast<double>(weight.numel());
  for (const size_t axis : {0, 1, 2})
    flops *= static_cast<double>(moves.outputs(input, weight, axis));
  CountFlops(FlopKind::kConvolution, flops);
  if (RunsOnCpu(x) && at::globalContext().userEnabledMkldnn())
    return ConvolvePacked(x, weight, bias, moves);
  if (x.is_meta()) return Frames(ConvolveOnMetaGpu(input, weight, bias, moves, flops));
  const std::vector<int64_t> dilation = {1, 1, 1};
  return Frames(at::conv3d(input, weight, bias, moves.strides, moves.padding, dilation, 1));
}

}  // namespace kino::engine
