#include "engine/models/ltx/vae_kernels.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mkldnn_convolution.h>
#include <ATen/ops/silu.h>

#include <algorithm>
#include <cmath>

#include "engine/models/ltx/vae_rows.h"

namespace kino::engine {
namespace {

constexpr double kNormEps = 1e-8;
// Elements a thread takes at a time: enough work to pay for waking it.
constexpr int64_t kElementsPerTask = 32768;

bool FusesOnCpu(const at::Tensor& x, const at::Tensor& out) {
  return x.is_cpu() && x.is_contiguous() && out.is_contiguous() &&
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

}  // namespace

void LtxNormSiluComposed(const at::Tensor& x, const LtxVaeModulation& modulation, at::Tensor out) {
  const at::Tensor variance = x.to(at::kFloat).square().mean(-1, /*keepdim=*/true);
  at::Tensor hidden = (x * variance.add_(kNormEps).rsqrt_()).to(x.scalar_type());
  if (modulation.shift.defined()) hidden.mul_(modulation.scale_plus_one).add_(modulation.shift);
  out.copy_(at::silu_(hidden));
}

void LtxNormSilu(const at::Tensor& x, const LtxVaeModulation& modulation, at::Tensor out) {
  if (!FusesOnCpu(x, out)) return LtxNormSiluComposed(x, modulation, std::move(out));
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
  const int64_t kernel_t = weight.size(2), kernel_h = weight.size(3), kernel_w = weight.size(4);
  if (kernel_t * kernel_h * kernel_w * stride.product() == 1) {
    return at::linear(x, weight.view({weight.size(0), weight.size(1)}), bias);
  }
  const at::Tensor input =
      x.permute({3, 0, 1, 2}).unsqueeze(0);  // a view: [1, C, T, H, W], channels last in memory
  const std::vector<int64_t> padding = {0, kernel_h / 2, kernel_w / 2},
                             strides = {stride.t, stride.h, stride.w};
  const std::vector<int64_t> dilation = {1, 1, 1};
  // at::conv3d leaves oneDNN for a slower loop of its own when the frames are few and small.
  const bool direct =
      x.is_cpu() && x.scalar_type() == at::kFloat && at::globalContext().userEnabledMkldnn();
  const at::Tensor output =
      direct ? at::mkldnn_convolution(input, weight, bias, padding, strides, dilation, 1)
             : at::conv3d(input, weight, bias, strides, padding, dilation, 1);
  return output.squeeze(0).permute({1, 2, 3, 0}).contiguous();
}

}  // namespace kino::engine
