#include "engine/models/ltx/vae_kernels.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mkldnn_reorder_conv3d_weight.h>
#include <ATen/ops/silu.h>

#include <algorithm>
#include <cmath>

#include "engine/core/trace.h"
#include "engine/models/ltx/vae_rows.h"
#include "engine/models/ltx/vae_runs.h"
#include "engine/ops/linear.h"

namespace kino::engine {
namespace {

constexpr double kNormEps = 1e-8;
// Elements a thread takes at a time: enough work to pay for waking it.
constexpr int64_t kElementsPerTask = 32768;

bool FusesOnCpu(const at::Tensor& x, const at::Tensor& out) {
  return RunsOnCpu(x) && x.is_contiguous() && out.is_contiguous() &&
         x.scalar_type() == out.scalar_type() &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

// gain and shift of the row functions, in float32; empty when not modulated.
std::pair<at::Tensor, at::Tensor> InFloat(const LtxVaeModulation& modulation) {
  if (!modulation.shift.defined()) return {};
  return {modulation.scale_plus_one.to(at::kFloat).contiguous(),
          modulation.shift.to(at::kFloat).contiguous()};
}

void NormSiluOnCpu(const at::Tensor& x, const LtxVaeModulation& modulation, at::Tensor& out) {
  const int64_t channels = x.size(3), rows = x.numel() / std::max<int64_t>(channels, 1);
  const auto [gain, shift] = InFloat(modulation);
  const float* gains = gain.defined() ? gain.const_data_ptr<float>() : nullptr;
  const float* shifts = shift.defined() ? shift.const_data_ptr<float>() : nullptr;
  const bool is_float = x.scalar_type() == at::kFloat;
  const void* from = x.const_data_ptr();
  void* to = out.mutable_data_ptr();
  const auto norm_of = [channels](float sum) {
    return 1.0f / std::sqrt(sum / static_cast<float>(channels) + static_cast<float>(kNormEps));
  };
  at::parallel_for(
      0, rows, std::max<int64_t>(1, kElementsPerTask / channels), [&](int64_t begin, int64_t end) {
        for (int64_t at = begin * channels; at < end * channels; at += channels) {
          if (is_float) {
            const float* row = static_cast<const float*>(from) + at;
            cpu::NormSiluRow(row, norm_of(cpu::SumSquares(row, channels)), gains, shifts,
                             static_cast<float*>(to) + at, channels);
          } else {
            const uint16_t* row = static_cast<const uint16_t*>(from) + at;
            cpu::NormSiluRowBFloat16(row, norm_of(cpu::SumSquaresBFloat16(row, channels)), gains,
                                     shifts, static_cast<uint16_t*>(to) + at, channels);
          }
        }
      });
}

std::vector<int64_t> Padding(const at::Tensor& weight) {
  return {0, weight.size(3) / 2, weight.size(4) / 2};
}
std::vector<int64_t> Strides(const LtxVaeStride& stride) { return {stride.t, stride.h, stride.w}; }

// On meta tensors: what a convolution gives, channels last.
at::Tensor OutputOnMeta(const at::Tensor& input, const at::Tensor& weight,
                        const LtxVaeStride& stride) {
  const std::vector<int64_t> padding = Padding(weight), strides = Strides(stride);
  std::vector<int64_t> shape = {1, weight.size(0)};
  for (int i = 0; i < 3; ++i) {
    shape.push_back((input.size(i + 2) + 2 * padding[i] - weight.size(i + 2)) / strides[i] + 1);
  }
  return at::empty(shape, input.options(), at::MemoryFormat::ChannelsLast3d);
}

// oneDNN's scratch memory, which it takes from torch's allocator; measured with oneDNN 3.10.
at::Tensor ScratchOnMeta(const at::Tensor& input, const at::Tensor& weight,
                         const LtxVaeStride& stride) {
  const int64_t taps = weight.size(2) * weight.size(3) * weight.size(4);
  const int64_t outputs = input.size(3) / stride.h * (input.size(4) / stride.w);
  int64_t elements = 0;
  if (!CpuOf(input).avx) {
    // One frame's inputs gathered, and the whole input with its channels first.
    elements = outputs * weight.size(1) * taps + input.numel();
  } else if (CpuOf(input).amx && input.scalar_type() == at::kBFloat16) {
    // Each thread copies some padded frames in whole tiles of channels, fewer without strides.
    constexpr int64_t kChannels = 32, kTiles = 8192;
    const int64_t most = int64_t{stride.product() > 1 ? 128 : 48} << 10;
    const int64_t channels = (input.size(1) + kChannels - 1) / kChannels * kChannels;
    const int64_t frames = weight.size(2) * (input.size(3) + 2) * (input.size(4) + 2) * channels;
    elements = Trace::Current()->target().threads * (std::min(frames, most) + kTiles);
  }
  return at::empty({elements}, input.options());
}

// The weight channels last, as cuDNN takes it, and the output.
at::Tensor ConvolveOnMetaGpu(const at::Tensor& input, const at::Tensor& weight,
                             const LtxVaeStride& stride) {
  TORCH_CHECK(input.is_contiguous(at::MemoryFormat::ChannelsLast3d), "a convolution's input of ",
              input.sizes(), " has the strides ", input.strides(), ", expected channels last");
  const at::Tensor reordered = at::empty(weight.sizes(), weight.options());
  return OutputOnMeta(input, weight, stride);
}

// A copy of `weight` in the order oneDNN likes best for inputs of `shape`, [1, C, T, H, W].
// at::conv3d gets there by way of one more order, several times slower.
at::Tensor Packed(const at::Tensor& weight, const LtxVaeStride& stride, at::IntArrayRef shape) {
  if (weight.is_meta()) {
    const at::Tensor dense = at::empty(weight.sizes(), weight.options());
    if (!CpuOf(weight).avx) return at::empty(weight.sizes(), weight.options());
    // oneDNN fills whole vectors of channels.
    std::vector<int64_t> padded = weight.sizes().vec();
    for (const size_t axis : {0, 1}) padded[axis] = (padded[axis] + 15) / 16 * 16;
    return at::empty(padded, weight.options());
  }
  return at::mkldnn_reorder_conv3d_weight(weight.to_mkldnn(), Padding(weight), Strides(stride),
                                          {1, 1, 1}, 1, shape);
}

// A view: [T, H, W, C] -> [1, C, T, H, W], channels last in memory. And back.
at::Tensor Batch(const at::Tensor& x) { return x.permute({3, 0, 1, 2}).unsqueeze(0); }
at::Tensor Frames(const at::Tensor& x) { return x.squeeze(0).permute({1, 2, 3, 0}).contiguous(); }

// The one operator of torch that takes dense frames and a packed weight; torch's own compiler uses
// it.
at::Tensor PackedConvolution(const at::Tensor& input, const at::Tensor& packed,
                             const at::Tensor& bias, const std::vector<int64_t>& padding,
                             const std::vector<int64_t>& strides) {
  using Signature =
      at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                 at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, int64_t, std::string_view,
                 c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mkldnn::_convolution_pointwise", "")
                             .typed<Signature>();
  const std::vector<int64_t> dilation = {1, 1, 1};
  return op.call(input, packed, bias, padding, strides, dilation, 1, "none",
                 c10::List<std::optional<at::Scalar>>(), std::nullopt);
}

// Some output channels after the others, so that little of the weight is packed at a time.
at::Tensor ConvolvePacked(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          const LtxVaeStride& stride) {
  const at::Tensor input = Batch(x);
  const auto convolve = [&](int64_t first, int64_t count) {
    const at::Tensor part = weight.narrow(0, first, count);
    const at::Tensor packed = Packed(part, stride, input.sizes());
    if (x.is_meta()) {
      const at::Tensor scratch = ScratchOnMeta(input, part, stride);
      return Frames(OutputOnMeta(input, part, stride));
    }
    return Frames(PackedConvolution(input, packed, bias.narrow(0, first, count), Padding(weight),
                                    Strides(stride)));
  };
  const int64_t channels = weight.size(0), most = LtxPackedChannels(weight.numel(), channels);
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

void LtxNormSiluComposed(const at::Tensor& x, const LtxVaeModulation& modulation, at::Tensor out) {
  const at::Tensor variance =
      (x.scalar_type() == at::kFloat ? x.square() : x.to(at::kFloat).square_())
          .mean(-1, /*keepdim=*/true);
  at::Tensor hidden = (x * variance.add_(kNormEps).rsqrt_()).to(x.scalar_type());
  if (modulation.shift.defined()) hidden.mul_(modulation.scale_plus_one).add_(modulation.shift);
  out.copy_(at::silu_(hidden));
}

void LtxNormSilu(const at::Tensor& x, const LtxVaeModulation& modulation, at::Tensor out) {
  if (!FusesOnCpu(x, out)) return LtxNormSiluComposed(x, modulation, std::move(out));
  if (x.is_meta()) return;
  NormSiluOnCpu(x, modulation, out);
}

at::Tensor LtxDepthToSpaceComposed(const at::Tensor& x, const LtxVaeStride& stride) {
  const int64_t frames = x.size(0), height = x.size(1), width = x.size(2),
                channels = x.size(3) / stride.product();
  return x.view({frames, height, width, channels, stride.t, stride.h, stride.w})
      .permute({0, 4, 1, 5, 2, 6, 3})
      .contiguous()
      .view({frames * stride.t, height * stride.h, width * stride.w, channels});
}

at::Tensor LtxDepthToSpace(const at::Tensor& x, const LtxVaeStride& stride) {
  return LtxDepthToSpaceComposed(x, stride);
}

at::Tensor LtxSpaceToDepth(const at::Tensor& x, const LtxVaeStride& stride) {
  const int64_t frames = x.size(0) / stride.t, height = x.size(1) / stride.h,
                width = x.size(2) / stride.w;
  return x.view({frames, stride.t, height, stride.h, width, stride.w, x.size(3)})
      .permute({0, 2, 4, 6, 1, 3, 5})
      .contiguous()
      .view({frames, height, width, x.size(3) * stride.product()});
}

at::Tensor LtxConvolve(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                       const LtxVaeStride& stride) {
  if (weight.size(2) * weight.size(3) * weight.size(4) * stride.product() == 1) {
    CountFlops(FlopKind::kConvolution,
               2.0 * static_cast<double>(x.numel()) * static_cast<double>(weight.size(0)));
    return Linear(x, weight.view({weight.size(0), weight.size(1)}), bias);
  }
  // oneDNN's order is for float32 and bfloat16.
  if (ComputesInFloat(x) || (RunsOnCpu(x) && x.scalar_type() == at::kHalf)) {
    return LtxConvolve(x.to(at::kFloat), weight.to(at::kFloat), bias.to(at::kFloat), stride)
        .to(x.scalar_type());
  }
  const int64_t outputs = ((x.size(0) - weight.size(2)) / stride.t + 1) *
                          ((x.size(1) - 1) / stride.h + 1) * ((x.size(2) - 1) / stride.w + 1);
  CountFlops(FlopKind::kConvolution,
             2.0 * static_cast<double>(outputs) * static_cast<double>(weight.numel()));
  if (RunsOnCpu(x) && at::globalContext().userEnabledMkldnn())
    return ConvolvePacked(x, weight, bias, stride);
  if (x.is_meta()) return Frames(ConvolveOnMetaGpu(Batch(x), weight, stride));
  const std::vector<int64_t> dilation = {1, 1, 1};
  const at::Tensor output =
      at::conv3d(Batch(x), weight, bias, Strides(stride), Padding(weight), dilation, 1);
  return Frames(output);
}

}  // namespace kino::engine
