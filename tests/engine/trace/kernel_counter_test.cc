#include "engine/core/kernel_counter.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "engine/core/trace.h"
#include "engine/ops/attention.h"
#include "engine/ops/conv3d.h"
#include "engine/ops/linear.h"
#include "engine/ops/norm_modulate.h"
#include "engine/ops/norm_rotary.h"
#include "engine/ops/norm_silu.h"
#include "engine/ops/swiglu.h"
#include "engine/ops/video_frames.h"
#include "engine/trace/meta_kernels.h"

namespace kino::engine {
namespace {

constexpr ComputeTarget kGpu = {.is_gpu = true};
const auto kFloats = at::TensorOptions().device(at::kMeta).dtype(at::kFloat);
const auto kHalves = kFloats.dtype(at::kBFloat16);

at::Tensor Floats(at::IntArrayRef shape) { return at::empty(shape, kFloats); }
at::Tensor Halves(at::IntArrayRef shape) { return at::empty(shape, kHalves); }

// What a body launches on a GPU, by hand: launches, bytes read and written.
struct Case {
  std::string name;
  std::function<void()> body;
  double launches, bytes_read, bytes_written;
};

void ExpectCounts(const std::vector<Case>& cases) {
  InstallMetaKernels();
  for (const Case& each : cases) {
    const Trace trace(kGpu);
    each.body();
    const KernelCounts counts = trace.counts().kernels;
    EXPECT_EQ(counts.launches, each.launches) << each.name;
    EXPECT_EQ(counts.bytes_read, each.bytes_read) << each.name;
    EXPECT_EQ(counts.bytes_written, each.bytes_written) << each.name;
  }
}

TEST(KernelCounter, CountsWhatTorchComputes) {
  const at::Tensor a = Floats({10, 100}), b = Floats({10, 100}), row = Floats({100});
  const at::Tensor halves = Halves({10, 100});
  ExpectCounts({
      {"a product and a sum", [&] { (void)(a * b + a); }, 2, 4 * 4000, 2 * 4000},
      {"a square reads once", [&] { (void)(a * a); }, 1, 4000, 4000},
      {"a repeated row is what it holds",
       [&] {
         (void)(a + row.expand({10, 100}));
       },
       1, 4400, 4000},
      {"in place",
       [&] {
         Floats({10, 100}).mul_(b);
       },
       1, 8000, 4000},
      {"a copy overwrites",
       [&] {
         Floats({10, 100}).copy_(b);
       },
       1, 4000, 4000},
      {"a copy converts", [&] { (void)a.to(at::kBFloat16); }, 1, 4000, 2000},
      {"of every second column", [&] { (void)(a.slice(1, 0, 100, 2) * 2); }, 1, 2000, 2000},
      {"windows that overlap", [&] { (void)(a.unfold(1, 3, 1) * 2); }, 1, 4000, 10 * 98 * 3 * 4},
      {"of every second, repeated",
       [&] {
         (void)(a.narrow(1, 0, 50) + row.slice(0, 0, 100, 2).expand({10, 50}));
       },
       1, 2000 + 200, 2000},
      {"zeros",
       [&] {
         (void)at::zeros({10, 100}, kFloats);
       },
       1, 0, 4000},
      {"made dense", [&] { (void)a.t().contiguous(); }, 1, 4000, 4000},
      {"joined",
       [&] {
         (void)at::cat({a, b});
       },
       1, 8000, 8000},
      {"activation in place",
       [&] {
         at::Tensor to = a;
         at::gelu_(to, "tanh");
       },
       1, 4000, 4000},
      {"moments beside the norm", [&] { (void)at::layer_norm(halves, {100}); }, 1, 2000,
       2000 + 2 * 10 * 4},
      {"a mean", [&] { (void)a.mean(1); }, 1, 4000, 40},
  });
}

TEST(KernelCounter, ViewsMemoryAndTheHostAreFree) {
  const at::Tensor a = Floats({10, 100}), on_host = at::zeros({10, 100});
  ExpectCounts({
      {"views",
       [&] {
         (void)a.narrow(0, 1, 2).t().unsqueeze(0).expand({3, -1, -1}).detach();
       },
       0, 0, 0},
      {"dense already", [&] { (void)a.contiguous().reshape({1000}).flatten(); }, 0, 0, 0},
      {"of that dtype already", [&] { (void)a.to(at::kFloat); }, 0, 0, 0},
      {"memory", [&] { (void)at::empty({5}, kFloats).resize_({9}); }, 0, 0, 0},
      {"nothing to do", [&] { (void)(a.narrow(0, 0, 0) * 2); }, 0, 0, 0},
      {"on the host", [&] { (void)(on_host * 2 + on_host); }, 0, 0, 0},
      {"to the device", [&] { (void)on_host.to(at::kMeta); }, 0, 0, 0},
      {"to the host", [&] { (void)ToHost(a, at::kFloat); }, 0, 0, 0},
      // The device converts first.
      {"to the host in float32", [] { (void)ToHost(Halves({10}), at::kFloat); }, 1, 20, 40},
  });
}

TEST(KernelCounter, CountsOurDoors) {
  const at::Tensor x = Halves({2, 8, 64}), y = Halves({2, 8, 64}), weight = Halves({64});
  const double all = 2 * 8 * 64 * 2;
  const at::Tensor table = Halves({6, 64});
  const TokenSpans spans = {{0, 8, 3}};
  const RotaryTable rotary = {.cos = Floats({8, 32}), .sin = Floats({8, 32})};
  const double angles = 2 * 8 * 32 * 4;
  const at::Tensor frames = Halves({3, 4, 5, 64});
  const double pixels = 3 * 4 * 5 * 64 * 2;
  const at::Tensor kernel = Halves({32, 64, 3, 3, 3}), bias = Halves({32});
  const double kernel_bytes = 32 * 64 * 27 * 2, convolved = 1 * 4 * 5 * 32 * 2;
  const double moments = 3 * 1 * 2 * 64 * 4, affine = 3 * 2 * 64 * 4;
  const at::Tensor keys = Halves({2, 5, 64});
  const double seen = 2 * 2 * 5 * 64 * 2;
  ExpectCounts({
      {"linear",
       [&] {
         (void)Linear(x, Halves({32, 64}), bias);
       },
       1, all + 32 * 64 * 2 + 32 * 2, all / 2},
      {"linear without bias",
       [&] {
         (void)Linear(x, Halves({32, 64}), {});
       },
       1, all + 32 * 64 * 2, all / 2},
      {"attention",
       [&] {
         (void)Attention(x, keys, Halves({2, 5, 64}), 4);
       },
       1, all + seen, all},
      {"frames as bytes", [&] { (void)FramesAsBytes(x); }, 1, all, all / 2},
      {"norm and modulation",
       [&] {
         (void)NormModulate(x, {}, table, Halves({6, 64}), spans);
       },
       1, all + 2 * 128, all},
      {"norm and scale", [&] { (void)NormModulate(x, {}, {}, table, spans); }, 1, all + 128, all},
      {"gate",
       [&] {
         at::Tensor to = x, from = y;
         AddGated(to, from, table, spans);
       },
       1, 2 * all + 128, all},
      // No kernel of ours takes it: the product, and the sum.
      {"gate of a table with gaps",
       [&] {
         at::Tensor to = x, from = y;
         AddGated(to, from, Halves({64, 6}).t(), spans);
       },
       2, 3 * all + 128, 2 * all},
      {"norm and gate",
       [&] {
         at::Tensor to = x;
         AddNormGated(to, y, 1e-6, table, spans);
       },
       1, 2 * all + 128, all},
      {"norm and rotary", [&] { (void)NormRotary(x, weight, 1e-5, rotary); }, 1, all + 128 + angles,
       all},
      {"norm of heads", [&] { (void)NormRotary(x, Halves({16}), 1e-5); }, 1, all + 32, all},
      {"norm and rotary into a part",
       [&] {
         NormRotaryInto(x.narrow(0, 0, 1), weight, 1e-5, rotary,
                        Halves({1, 20, 64}).narrow(1, 4, 8));
       },
       1, all / 2 + 128 + angles, all / 2},
      {"SwiGLU", [&] { (void)SwiGlu(x, false); }, 1, all, all / 2},
      {"norm and SiLU",
       [&] { RmsNormSilu(frames, {.shift = weight, .scale_plus_one = Halves({64})}, frames); }, 1,
       pixels + 2 * 128, pixels},
      // Moments, what they make of a channel, and the pass that applies it.
      {"group norm and SiLU",
       [&] { GroupNormSilu(frames, {.weight = weight, .bias = Halves({64})}, frames); }, 3,
       2 * pixels + moments + 2 * 128 + affine, moments + affine + pixels},
      // The weight's order, the products, the bias.
      {"convolution", [&] { (void)Conv3d(frames, kernel, bias, {}); }, 3,
       kernel_bytes + pixels + kernel_bytes + convolved + 64, kernel_bytes + 2 * convolved},
      {"convolution of a pixel",
       [&] {
         (void)Conv3d(frames, Halves({32, 64, 1, 1, 1}), bias, {});
       },
       1, pixels + 32 * 64 * 2 + 64, pixels / 2},
  });
}

// Each kernel by itself: one that computes long does not hide one that moves much.
TEST(KernelCounter, RooflineIsTheSumOverKernels) {
  const Roofline limits;
  const Trace trace(kGpu);
  const at::Tensor x = Halves({1, 8192, 4096});
  (void)Linear(x, Halves({4096, 4096}), {});
  const double product = 2.0 * 8192 * 4096 * 4096 / limits.flops_per_second;
  EXPECT_DOUBLE_EQ(trace.counts().kernels.roofline_seconds, product);
  (void)(x * 2);
  EXPECT_DOUBLE_EQ(trace.counts().kernels.roofline_seconds,
                   product + 2.0 * 8192 * 4096 * 2 / limits.bytes_per_second);
}

TEST(KernelCounter, ACpuHasNoKernels) {
  Trace trace({});
  (void)(Floats({10}) * 2);
  CountKernel({Floats({10})}, {Floats({10})});
  EXPECT_EQ(trace.counts().kernels.launches, 0);
}

TEST(KernelCounter, ResetStartsFromNothing) {
  Trace trace(kGpu);
  (void)(Floats({10}) * 2);
  trace.Reset();
  EXPECT_EQ(trace.counts().kernels.launches, 0);
  (void)(Floats({10}) * 2);
  EXPECT_EQ(trace.counts().kernels.launches, 1);
}

}  // namespace
}  // namespace kino::engine
