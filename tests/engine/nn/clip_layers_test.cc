#include "engine/nn/clip_layers.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/replication_pad3d.h>
#include <ATen/ops/silu.h>

#include "tests/engine/nn/layer_weights.h"

namespace kino::engine {
namespace {

// As torch's layers have it, and back: [T, H, W, C], [1, C, T, H, W].
at::Tensor ChannelsFirst(const at::Tensor& clip) { return clip.permute({3, 0, 1, 2}).unsqueeze(0); }
at::Tensor ChannelsLast(const at::Tensor& clip) { return clip.squeeze(0).permute({1, 2, 3, 0}); }

// More frames than three runs of a CPU take, and the last run is smaller.
constexpr int64_t kFrames = 19, kIn = 4, kOut = 6;
// Sums of some hundred float32 products, in another order.
constexpr double kTolerance = 2e-5;

// HunyuanVideoCausalConv3d, in one.
at::Tensor Convolved(const at::Tensor& clip, const at::Tensor& weight, const at::Tensor& bias,
                     at::IntArrayRef stride = {1, 1, 1}) {
  return ChannelsLast(at::conv3d(at::replication_pad3d(ChannelsFirst(clip), {1, 1, 1, 1, 2, 0}),
                                 weight, bias, stride));
}

at::Tensor NormedSilu(const at::Tensor& clip, const LayerWeights& weights,
                      const std::string& norm) {
  return ChannelsLast(at::silu(at::group_norm(ChannelsFirst(clip), 2, weights.Get(norm + ".weight"),
                                              weights.Get(norm + ".bias"), 1e-6)));
}

class ClipConvolutionTest : public ::testing::Test {
 protected:
  at::Tensor Expected(const at::Tensor& clip, at::IntArrayRef stride = {1, 1, 1}) const {
    return Convolved(clip, weights_.Get("conv.weight"), weights_.Get("conv.bias"), stride);
  }
  ClipConvolution Load(const Stride3d& stride = {}) {
    return weights_.Load([&](const WeightScope& scope) {
      norm_ = GroupNorm(scope.Sub("norm"), kIn, {.groups = 2, .eps = 1e-6});
      return ClipConvolution(scope, kIn, kOut, stride);
    });
  }

  LayerWeights weights_{{{"conv.weight", {kOut, kIn, 3, 3, 3}},
                         {"conv.bias", {kOut}},
                         {"norm.weight", {kIn}},
                         {"norm.bias", {kIn}}}};
  GroupNorm norm_;
};

TEST_F(ClipConvolutionTest, RunsOfFramesGiveWhatTheClipGives) {
  for (const Stride3d& stride :
       {Stride3d{}, Stride3d{.t = 1, .h = 2, .w = 2}, Stride3d{.t = 2, .h = 2, .w = 2}}) {
    const ClipConvolution convolution = Load(stride);
    for (const int64_t frames : {int64_t{1}, int64_t{2}, kFrames - 1, kFrames}) {
      const at::Tensor clip = Random({frames, 6, 4, kIn}, 1);
      EXPECT_LT(MaxError(convolution.Apply(clip), Expected(clip, {stride.t, stride.h, stride.w})),
                kTolerance)
          << frames << " frames, stride " << stride.t;
    }
  }
}

TEST_F(ClipConvolutionTest, ANormIsOfTheWholeClip) {
  const ClipConvolution convolution = Load();
  const at::Tensor clip = Random({kFrames, 6, 4, kIn}, 2);
  EXPECT_LT(
      MaxError(convolution.ApplyNormed(clip, norm_), Expected(NormedSilu(clip, weights_, "norm"))),
      kTolerance);
}

TEST_F(ClipConvolutionTest, TheFirstFrameOfDoubledFramesIsOne) {
  const ClipConvolution convolution = Load();
  const at::Tensor clip = Random({(kFrames + 1) / 2, 3, 2, kIn}, 3);
  const at::Tensor sides = clip.repeat_interleave(2, 1).repeat_interleave(2, 2);
  EXPECT_LT(MaxError(convolution.ApplyDoubled(clip, false), Expected(sides)), kTolerance);
  const at::Tensor frames = sides.repeat_interleave(2, 0);
  EXPECT_LT(MaxError(convolution.ApplyDoubled(clip, true),
                     Expected(frames.narrow(0, 1, frames.size(0) - 1))),
            kTolerance);
}

TEST(ClipResnetTest, AddsItsClipOrWhatItsShortcutMakesOfIt) {
  for (const int64_t in : {kIn, kOut}) {
    std::map<std::string, std::vector<int64_t>> shapes = {
        {"norm1.weight", {in}},
        {"norm1.bias", {in}},
        {"conv1.conv.weight", {kOut, in, 3, 3, 3}},
        {"conv1.conv.bias", {kOut}},
        {"norm2.weight", {kOut}},
        {"norm2.bias", {kOut}},
        {"conv2.conv.weight", {kOut, kOut, 3, 3, 3}},
        {"conv2.conv.bias", {kOut}}};
    if (in != kOut) {
      shapes["conv_shortcut.conv.weight"] = {kOut, in, 1, 1, 1};
      shapes["conv_shortcut.conv.bias"] = {kOut};
    }
    LayerWeights weights(shapes);
    const ClipResnet resnet = weights.Load([&](const WeightScope& scope) {
      return ClipResnet(scope, in, kOut, {.groups = 2, .eps = 1e-6});
    });
    const at::Tensor clip = Random({kFrames, 4, 5, in}, 4);
    const auto half = [&](const at::Tensor& x, const std::string& index) {
      return Convolved(NormedSilu(x, weights, "norm" + index),
                       weights.Get("conv" + index + ".conv.weight"),
                       weights.Get("conv" + index + ".conv.bias"));
    };
    at::Tensor shortcut = clip;
    if (in != kOut) {
      shortcut =
          ChannelsLast(at::conv3d(ChannelsFirst(clip), weights.Get("conv_shortcut.conv.weight"),
                                  weights.Get("conv_shortcut.conv.bias")));
    }
    const at::Tensor before = clip.clone();
    EXPECT_LT(MaxError(resnet.Apply(clip), half(half(clip, "1"), "2") + shortcut), kTolerance);
    EXPECT_TRUE(clip.equal(before));
  }
}

}  // namespace
}  // namespace kino::engine
