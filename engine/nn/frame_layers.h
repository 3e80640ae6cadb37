// Layers of image autoencoders as video autoencoders use them, on frames kept channels last, [T, H,
// W, C]. Immutable after construction. Sources: diffusers 0.42.1 models/resnet.py (ResnetBlock2D),
// models/upsampling.py (Upsample2D), models/attention_processor.py (Attention with a group norm),
// models/autoencoders/autoencoder_kl_allegro.py (AllegroTemporalConvLayer).
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>

#include "engine/weights/weight_set.h"

namespace kino::engine {

// A convolution whose kernel has two axes, of space, or three, with time before them. Space is
// padded with zeros to keep its size, time is not.
class FrameConvolution {
 public:
  FrameConvolution() = default;
  // `scope` holds weight [out, in, kernel...] and bias.
  FrameConvolution(const WeightScope& scope, int64_t in, int64_t out, at::IntArrayRef kernel);
  // [T, H, W, in] -> [T - kt + 1, H, W, out]
  at::Tensor Apply(const at::Tensor& frames) const;

 private:
  WeightRef weight_, bias_;
};

// torch.nn.GroupNorm.
class GroupNorm {
 public:
  // What has one mean and variance in each group.
  enum class Over { kFrame, kClip };
  struct Options {
    int64_t groups = 32;
    double eps = 1e-6;
  };

  GroupNorm() = default;
  // `scope` holds weight and bias, [channels].
  GroupNorm(const WeightScope& scope, int64_t channels, const Options& options);
  // [T, H, W, C] -> the same.
  at::Tensor Apply(const at::Tensor& frames, Over over = Over::kFrame) const;
  at::Tensor ApplySilu(const at::Tensor& frames, Over over = Over::kFrame) const;
  // The norm of a whole clip, for AffineSilu to apply to some of its frames at a time.
  at::Tensor ClipAffine(const at::Tensor& clip) const;

 private:
  WeightRef weight_, bias_;
  Options options_;
};

// Norm, SiLU and convolution, twice, around a shortcut.
class FrameResnet {
 public:
  FrameResnet() = default;
  // `scope` holds norm1, conv1, norm2, conv2, and conv_shortcut where `in` is not `out`.
  FrameResnet(const WeightScope& scope, int64_t in, int64_t out, const GroupNorm::Options& norm);
  at::Tensor Apply(const at::Tensor& frames) const;

 private:
  GroupNorm norm1_, norm2_;
  FrameConvolution conv1_, conv2_;
  std::optional<FrameConvolution> shortcut_;
};

// Norm, SiLU and convolution over time, four times, around a shortcut; norms are of the whole clip,
// whose first and last frames are repeated before each convolution and count in the norm. One that
// doubles the frames convolves over space as well, and repeats none before the first convolution.
class TemporalResnet {
 public:
  // `scope` holds conv1 to conv4, each with a norm and a convolution at their places in a
  // Sequential.
  TemporalResnet(const WeightScope& scope, int64_t channels, const GroupNorm::Options& norm,
                 bool doubles_frames = false);
  // [T, H, W, C] -> the same, or [2 T, H, W, C]
  at::Tensor Apply(const at::Tensor& frames) const;

 private:
  std::array<GroupNorm, 4> norms_;
  std::array<FrameConvolution, 4> convolutions_;
  bool doubles_frames_;
};

// Positions attend to each other, in one head; the frames are added.
class FrameAttention {
 public:
  // What a position attends to.
  enum class Sees {
    kOwnFrame,
    kFramesSoFar,  // its own and those before it; the norm is over the whole clip
  };

  FrameAttention() = default;
  // `scope` holds group_norm, to_q, to_k, to_v, to_out.0.
  FrameAttention(const WeightScope& scope, int64_t channels, const GroupNorm::Options& norm,
                 Sees sees = Sees::kOwnFrame);
  // [T, H, W, C] -> the same.
  at::Tensor Apply(const at::Tensor& frames) const;

 private:
  GroupNorm norm_;
  Sees sees_ = Sees::kOwnFrame;
  LinearWeight q_, k_, v_, out_;
};

// A frame of zeros before the first and behind the last.
at::Tensor PadTime(const at::Tensor& frames);

// Every pixel as a square of four: [T, H, W, C] -> [T, 2 H, 2 W, C].
at::Tensor DoubleSides(const at::Tensor& frames);

}  // namespace kino::engine
