#include "engine/ops/norm_silu.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <vector>

#include "engine/core/kernel_counter.h"
#include "engine/core/trace.h"
#include "engine/ops/cpu_rows.h"
#include "engine/ops/row_loop.h"
#ifdef KINO_WITH_CUDA
#include "engine/ops/cuda/channel_kernels.h"
#include "engine/ops/cuda/launch.h"
#endif

namespace kino::engine {
namespace {

constexpr double kRmsEps = 1e-8;
// Positions whose moments are summed in float32; sums of several such blocks are double.
constexpr int64_t kMomentBlock = 256;

// gain and shift of the row functions, in float32; empty when not modulated.
std::pair<at::Tensor, at::Tensor> InFloat(const ChannelModulation& modulation) {
  if (!modulation.shift.defined()) return {};
  return {modulation.scale_plus_one.to(at::kFloat).contiguous(),
          modulation.shift.to(at::kFloat).contiguous()};
}

template <typename T>
void RmsNormSiluOnCpu(const at::Tensor& x, const ChannelModulation& modulation, at::Tensor& out) {
  const int64_t channels = x.size(3), rows = x.numel() / std::max<int64_t>(channels, 1);
  const auto [gain, shift] = InFloat(modulation);
  const float* gains = gain.defined() ? gain.const_data_ptr<float>() : nullptr;
  const float* shifts = shift.defined() ? shift.const_data_ptr<float>() : nullptr;
  const T* from = cpu::Data<T>(x);
  T* to = cpu::MutableData<T>(out);
  at::parallel_for(0, rows, cpu::RowsPerTask(channels), [&](int64_t begin, int64_t end) {
    for (int64_t at = begin * channels; at < end * channels; at += channels) {
      const float mean = cpu::SumSquares(from + at, channels) / static_cast<float>(channels);
      const float norm = 1.0f / std::sqrt(mean + static_cast<float>(kRmsEps));
      cpu::NormSiluRow(from + at, norm, gains, shifts, to + at, channels);
    }
  });
}

// Rows of a position are contiguous; `out` may have gaps between positions.
bool FusesGroupNorm(const at::Tensor& x, const at::Tensor& out) {
  return RunsOnCpu(x) && x.is_contiguous() && out.stride(3) == 1 &&
         x.scalar_type() == out.scalar_type() &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

int64_t MomentBlocks(const at::Tensor& x) {
  return (x.size(1) * x.size(2) + kMomentBlock - 1) / kMomentBlock;
}

// For each frame's blocks of positions, sums and sums of squares by channel. The CPU's loops add to
// them, a kernel writes them.
at::Tensor Moments(const at::Tensor& x) {
  const std::vector<int64_t> shape = {x.size(0), MomentBlocks(x), 2, x.size(3)};
  const at::TensorOptions options = x.options().dtype(at::kFloat);
  return RunsOnGpu(x) ? at::empty(shape, options) : at::zeros(shape, options);
}
// Of each frame, what a channel is multiplied with and what is added.
at::Tensor Affine(const at::Tensor& x) {
  return at::empty({x.size(0), 2, x.size(3)}, x.options().dtype(at::kFloat));
}

void SolveAffine(const FrameGroupNorm& norm, int64_t positions, const at::Tensor& moments,
                 const at::Tensor& affine) {
  const int64_t blocks = moments.size(1), channels = moments.size(3),
                in_group = channels / norm.groups;
  const at::Tensor weight = norm.weight.to(at::kFloat).contiguous(),
                   bias = norm.bias.to(at::kFloat).contiguous();
  const float* weights = weight.const_data_ptr<float>();
  const float* biases = bias.const_data_ptr<float>();
  for (int64_t frame = 0; frame < moments.size(0); ++frame) {
    const float* sums = moments.const_data_ptr<float>() + frame * blocks * 2 * channels;
    float* gains = affine.mutable_data_ptr<float>() + frame * 2 * channels;
    for (int64_t group = 0; group < norm.groups; ++group) {
      double sum = 0, squares = 0;
      for (int64_t block = 0; block < blocks; ++block) {
        const float* of_block = sums + block * 2 * channels + group * in_group;
        for (int64_t i = 0; i < in_group; ++i) {
          sum += of_block[i];
          squares += of_block[channels + i];
        }
      }
      const double count = static_cast<double>(positions * in_group), mean = sum / count;
      const double variance = std::max(0.0, squares / count - mean * mean);
      const double inverse = 1.0 / std::sqrt(variance + norm.eps);
      for (int64_t i = group * in_group; i < (group + 1) * in_group; ++i) {
        gains[i] = static_cast<float>(inverse * weights[i]);
        gains[channels + i] = static_cast<float>(biases[i] - mean * inverse * weights[i]);
      }
    }
  }
}

// Affine of each frame.
template <typename T>
at::Tensor AffineOnCpu(const at::Tensor& x, const FrameGroupNorm& norm) {
  const int64_t frames = x.size(0), positions = x.size(1) * x.size(2), channels = x.size(3),
                blocks = MomentBlocks(x);
  const T* from = cpu::Data<T>(x);
  const at::Tensor moments = Moments(x), affine = Affine(x);
  float* sums = moments.mutable_data_ptr<float>();
  at::parallel_for(0, frames * blocks, cpu::RowsPerTask(channels * kMomentBlock),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t at = begin; at < end; ++at) {
                       const int64_t frame = at / blocks, first = at % blocks * kMomentBlock;
                       const int64_t last = std::min(first + kMomentBlock, positions);
                       float* of_block = sums + at * 2 * channels;
                       for (int64_t i = first; i < last; ++i) {
                         cpu::AddMoments(from + (frame * positions + i) * channels, of_block,
                                         of_block + channels, channels);
                       }
                     }
                   });
  SolveAffine(norm, positions, moments, affine);
  return affine;
}

template <typename T>
void AffineSiluOnCpu(const at::Tensor& x, const at::Tensor& affine, at::Tensor& out) {
  const int64_t frames = x.size(0), width = x.size(2), positions = x.size(1) * width,
                channels = x.size(3), step = affine.size(0) == 1 ? 0 : 2 * channels;
  const T* from = cpu::Data<T>(x);
  T* to = cpu::MutableData<T>(out);
  const float* gains = affine.const_data_ptr<float>();
  at::parallel_for(
      0, frames * positions, cpu::RowsPerTask(channels), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const int64_t frame = row / positions, y = row % positions / width, at = row % width;
          const float* gain = gains + frame * step;
          cpu::AffineSiluRow(from + row * channels, gain, gain + channels,
                             to + frame * out.stride(0) + y * out.stride(1) + at * out.stride(2),
                             channels);
        }
      });
}

// All frames as one.
at::Tensor Tall(const at::Tensor& x) {
  return x.view({1, x.size(0) * x.size(1), x.size(2), x.size(3)});
}

// Which of t frames is the nearest to each of T.
struct NearestFrames {
  NearestFrames(int64_t frames, int64_t coarse)
      : alone(frames > 1 && frames % 2 == 1 ? 1 : 0),
        ratio(coarse > alone ? (frames - alone) / (coarse - alone) : 1) {}
  int64_t operator()(int64_t frame) const {
    return frame < alone ? 0 : alone + (frame - alone) / ratio;
  }
  int64_t alone, ratio;
};

template <typename T>
void GroupNormModulateSiluOnCpu(const at::Tensor& x, const FrameGroupNorm& norm,
                                const NearestModulation& modulation, at::Tensor& out) {
  const int64_t height = x.size(1), width = x.size(2), channels = x.size(3),
                coarse_height = modulation.scale.size(1), coarse_width = modulation.scale.size(2);
  const NearestFrames nearest(x.size(0), modulation.scale.size(0));
  const int64_t down = height / coarse_height, right = width / coarse_width;
  const at::Tensor affine = AffineOnCpu<T>(Tall(x), norm);
  const float* gain = affine.const_data_ptr<float>();
  const T* from = cpu::Data<T>(x);
  const T* scales = cpu::Data<T>(modulation.scale);
  const T* shifts = cpu::Data<T>(modulation.shift);
  T* to = cpu::MutableData<T>(out);
  at::parallel_for(
      0, x.size(0) * height * width, cpu::RowsPerTask(channels), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const int64_t frame = nearest(row / (height * width)), y = row / width % height / down,
                        at = row % width / right;
          const int64_t coarse = ((frame * coarse_height + y) * coarse_width + at) * channels;
          cpu::AffineModulateSiluRow(from + row * channels, gain, gain + channels, scales + coarse,
                                     shifts + coarse, to + row * channels, channels);
        }
      });
}

#ifdef KINO_WITH_CUDA
cuda::Positions PositionsOf(const at::Tensor& x, const at::Tensor& out) {
  return {.frames = x.size(0),
          .height = x.size(1),
          .width = x.size(2),
          .channels = x.size(3),
          .out_frame = out.stride(0),
          .out_row = out.stride(1),
          .out_position = out.stride(2)};
}

bool CanLaunchOn(const at::Tensor& x, const at::Tensor& out) {
  return cuda::ElementOf(x.scalar_type()) && cuda::CanLaunch(x) && out.stride(3) == 1 &&
         out.scalar_type() == x.scalar_type();
}
#endif

void Check(const at::Tensor& x, const at::Tensor& out) {
  TORCH_CHECK(x.dim() == 4 && out.sizes() == x.sizes(), "norm and SiLU: from ", x.sizes(), " into ",
              out.sizes(), ", expected [T, H, W, C]");
}

void CheckGroups(const at::Tensor& x, const FrameGroupNorm& norm) {
  TORCH_CHECK(norm.groups > 0 && x.size(3) % norm.groups == 0, "group norm of ", x.size(3),
              " channels in ", norm.groups, " groups");
}

}  // namespace

void RmsNormSiluComposed(const at::Tensor& x, const ChannelModulation& modulation, at::Tensor out) {
  const at::Tensor variance =
      (x.scalar_type() == at::kFloat ? x.square() : x.to(at::kFloat).square_())
          .mean(-1, /*keepdim=*/true);
  at::Tensor hidden = (x * variance.add_(kRmsEps).rsqrt_()).to(x.scalar_type());
  if (modulation.shift.defined()) hidden.mul_(modulation.scale_plus_one).add_(modulation.shift);
  out.copy_(at::silu_(hidden));
}

void RmsNormSilu(const at::Tensor& x, const ChannelModulation& modulation, at::Tensor out) {
  Check(x, out);
  if (x.is_meta() && RunsOnGpu(x) && x.is_contiguous())
    return CountKernel({x, modulation.scale_plus_one, modulation.shift}, {out});
#ifdef KINO_WITH_CUDA
  const bool modulates = modulation.shift.defined();
  if (CanLaunchOn(x, out) &&
      (!modulates || cuda::CanLaunch(x, modulation.shift, modulation.scale_plus_one))) {
    const c10::cuda::CUDAGuard guard(x.device());
    C10_CUDA_CHECK(cuda::RmsNormSilu(
        *cuda::ElementOf(x.scalar_type()), x.const_data_ptr(),
        modulates ? modulation.scale_plus_one.const_data_ptr() : nullptr,
        modulates ? modulation.shift.const_data_ptr() : nullptr, out.mutable_data_ptr(),
        PositionsOf(x, out), static_cast<float>(kRmsEps), cuda::StreamOf(x)));
    return;
  }
#endif
  if (!cpu::FusesRows(x, out)) return RmsNormSiluComposed(x, modulation, std::move(out));
  if (x.is_meta()) return;
  cpu::WithRowType(x, [&](auto zero) { RmsNormSiluOnCpu<decltype(zero)>(x, modulation, out); });
}

void GroupNormSiluComposed(const at::Tensor& x, const FrameGroupNorm& norm, at::Tensor out) {
  at::Tensor hidden = at::group_norm(x.permute({0, 3, 1, 2}), norm.groups, norm.weight, norm.bias,
                                     norm.eps, /*cudnn_enabled=*/false);
  at::silu_(hidden);
  out.copy_(hidden.permute({0, 2, 3, 1}));
}

at::Tensor GroupNormAffineComposed(const at::Tensor& x, const FrameGroupNorm& norm) {
  const at::Tensor grouped =
      x.to(at::kFloat).flatten(1, 2).unflatten(2, {norm.groups, x.size(3) / norm.groups});
  const auto mean = [](const at::Tensor& of) { return of.mean({1, 3}, /*keepdim=*/true); };
  const at::Tensor centre = mean(grouped);
  const at::Tensor inverse = (mean((grouped - centre).square_()) + norm.eps).rsqrt_();
  const auto by_group = [&](const at::Tensor& parameter) {
    return parameter.to(at::kFloat).view({1, 1, norm.groups, -1});
  };
  const at::Tensor gain = inverse * by_group(norm.weight);
  return at::cat({gain, by_group(norm.bias) - centre * gain}, 1).flatten(2, 3);
}

at::Tensor GroupNormAffine(const at::Tensor& x, const FrameGroupNorm& norm) {
  Check(x, x);
  CheckGroups(x, norm);
  TORCH_CHECK(x.numel() > 0, "group norm of nothing, ", x.sizes());
  const bool runs_on_gpu = RunsOnGpu(x) && x.is_contiguous();
  if (x.is_meta() && (runs_on_gpu || FusesGroupNorm(x, x))) {
    const at::Tensor moments = Moments(x), affine = Affine(x);
    CountKernel({x}, {moments});
    CountKernel({moments, norm.weight, norm.bias}, {affine});
    return affine;
  }
#ifdef KINO_WITH_CUDA
  if (runs_on_gpu && CanLaunchOn(x, x) && cuda::CanLaunch(x, norm.weight, norm.bias)) {
    const c10::cuda::CUDAGuard guard(x.device());
    const at::Tensor moments = Moments(x), affine = Affine(x);
    C10_CUDA_CHECK(cuda::GroupNormAffine(
        *cuda::ElementOf(x.scalar_type()), x.const_data_ptr(), norm.weight.const_data_ptr(),
        norm.bias.const_data_ptr(), PositionsOf(x, x), norm.groups, static_cast<float>(norm.eps),
        moments.mutable_data_ptr<float>(), moments.size(1), affine.mutable_data_ptr<float>(),
        cuda::StreamOf(x)));
    return affine;
  }
#endif
  if (!FusesGroupNorm(x, x)) return GroupNormAffineComposed(x, norm);
  at::Tensor affine;
  cpu::WithRowType(x, [&](auto zero) { affine = AffineOnCpu<decltype(zero)>(x, norm); });
  return affine;
}

void AffineSiluComposed(const at::Tensor& x, const at::Tensor& affine, at::Tensor out) {
  const at::Tensor gain = affine.select(1, 0).unsqueeze(1).unsqueeze(1),
                   shift = affine.select(1, 1).unsqueeze(1).unsqueeze(1);
  at::Tensor hidden = (x.to(at::kFloat) * gain).add_(shift).to(x.scalar_type());
  out.copy_(at::silu_(hidden));
}

void AffineSilu(const at::Tensor& x, const at::Tensor& affine, at::Tensor out) {
  Check(x, out);
  TORCH_CHECK(affine.dim() == 3 && (affine.size(0) == 1 || affine.size(0) == x.size(0)) &&
                  affine.size(1) == 2 && affine.size(2) == x.size(3),
              "frames ", x.sizes(), " with gains and shifts of ", affine.sizes());
  if (x.numel() == 0) return;
  if (x.is_meta() && RunsOnGpu(x) && x.is_contiguous()) return CountKernel({x, affine}, {out});
#ifdef KINO_WITH_CUDA
  if (RunsOnGpu(x) && x.is_contiguous() && CanLaunchOn(x, out) && cuda::CanLaunch(affine)) {
    const c10::cuda::CUDAGuard guard(x.device());
    C10_CUDA_CHECK(cuda::AffineSilu(
        *cuda::ElementOf(x.scalar_type()), x.const_data_ptr(), affine.const_data_ptr<float>(),
        affine.size(0), out.mutable_data_ptr(), PositionsOf(x, out), cuda::StreamOf(x)));
    return;
  }
#endif
  if (!FusesGroupNorm(x, out) || !affine.is_contiguous())
    return AffineSiluComposed(x, affine, std::move(out));
  if (x.is_meta()) return;
  cpu::WithRowType(x, [&](auto zero) { AffineSiluOnCpu<decltype(zero)>(x, affine, out); });
}

void GroupNormSilu(const at::Tensor& x, const FrameGroupNorm& norm, at::Tensor out) {
  Check(x, out);
  CheckGroups(x, norm);
  if (x.numel() == 0) return;
  if (!(RunsOnGpu(x) && x.is_contiguous()) && !FusesGroupNorm(x, out))
    return GroupNormSiluComposed(x, norm, std::move(out));
  AffineSilu(x, GroupNormAffine(x, norm), std::move(out));
}

void GroupNormModulateSiluComposed(const at::Tensor& x, const FrameGroupNorm& norm,
                                   const NearestModulation& modulation, at::Tensor out) {
  const int64_t coarse_height = modulation.scale.size(1), coarse_width = modulation.scale.size(2);
  at::Tensor hidden = at::group_norm(x.permute({3, 0, 1, 2}).unsqueeze(0), norm.groups, norm.weight,
                                     norm.bias, norm.eps, /*cudnn_enabled=*/false)
                          .squeeze(0)
                          .permute({1, 2, 3, 0})
                          .contiguous();
  const NearestFrames nearest(x.size(0), modulation.scale.size(0));
  for (int64_t frame = 0; frame < x.size(0); ++frame) {
    const at::Tensor positions = hidden[frame].view(
        {coarse_height, x.size(1) / coarse_height, coarse_width, x.size(2) / coarse_width, -1});
    const auto of_frame = [&](const at::Tensor& map) {
      return map[nearest(frame)].unsqueeze(1).unsqueeze(3);
    };
    positions.mul_(of_frame(modulation.scale)).add_(of_frame(modulation.shift));
  }
  out.copy_(at::silu_(hidden));
}

void GroupNormModulateSilu(const at::Tensor& x, const FrameGroupNorm& norm,
                           const NearestModulation& modulation, at::Tensor out) {
  Check(x, out);
  const at::Tensor& scale = modulation.scale;
  if (!scale.defined()) return GroupNormSilu(Tall(x), norm, Tall(out));
  CheckGroups(x, norm);
  const NearestFrames nearest(x.size(0), scale.size(0));
  TORCH_CHECK(scale.dim() == 4 && modulation.shift.sizes() == scale.sizes() &&
                  scale.size(3) == x.size(3) && x.size(1) % scale.size(1) == 0 &&
                  x.size(2) % scale.size(2) == 0 && scale.size(0) >= nearest.alone &&
                  nearest.alone + (scale.size(0) - nearest.alone) * nearest.ratio == x.size(0),
              "norm and SiLU: frames ", x.sizes(), " with parameters of ", scale.sizes());
  if (x.numel() == 0) return;
  const bool runs_on_gpu = RunsOnGpu(x) && x.is_contiguous() && out.is_contiguous();
  if (x.is_meta() && (runs_on_gpu || FusesGroupNorm(x, out))) {
    const at::Tensor moments = Moments(Tall(x)), affine = Affine(Tall(x));
    CountKernel({x}, {moments});
    CountKernel({moments, norm.weight, norm.bias}, {affine});
    CountKernel({x, affine, scale, modulation.shift}, {out});
    return;
  }
#ifdef KINO_WITH_CUDA
  if (runs_on_gpu && CanLaunchOn(x, out) &&
      cuda::CanLaunch(x, norm.weight, norm.bias, scale, modulation.shift)) {
    const c10::cuda::CUDAGuard guard(x.device());
    const at::Tensor tall = Tall(x), moments = Moments(tall), affine = Affine(tall);
    C10_CUDA_CHECK(cuda::GroupNormModulateSilu(
        *cuda::ElementOf(x.scalar_type()), x.const_data_ptr(), norm.weight.const_data_ptr(),
        norm.bias.const_data_ptr(), scale.const_data_ptr(), modulation.shift.const_data_ptr(),
        out.mutable_data_ptr(), PositionsOf(x, out),
        {.frames = scale.size(0), .height = scale.size(1), .width = scale.size(2)}, norm.groups,
        static_cast<float>(norm.eps), moments.mutable_data_ptr<float>(), moments.size(1),
        affine.mutable_data_ptr<float>(), cuda::StreamOf(x)));
    return;
  }
#endif
  if (!FusesGroupNorm(x, out) || !out.is_contiguous() || !cpu::FusesRows(x, scale) ||
      !cpu::FusesRows(x, modulation.shift))
    return GroupNormModulateSiluComposed(x, norm, modulation, std::move(out));
  cpu::WithRowType(
      x, [&](auto zero) { GroupNormModulateSiluOnCpu<decltype(zero)>(x, norm, modulation, out); });
}

}  // namespace kino::engine
