// Layers of video autoencoders whose norms see all frames of a clip, [T, H, W, C]: a whole clip
// goes from layer to layer. Convolutions take a run of its frames at a time, so that little is held
// beside what goes in and out. Immutable after construction. Source: diffusers 0.42.1
// models/autoencoders/autoencoder_kl_hunyuan_video.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "absl/functional/function_ref.h"
#include "engine/core/stride3d.h"
#include "engine/nn/causal_conv3d.h"
#include "engine/nn/frame_layers.h"
#include "engine/weights/weight_set.h"

namespace kino::engine {

// Kernel 3 in each axis; causal, and edges are repeated.
class ClipConvolution {
 public:
  // Is given the frames that come out, from `first` on.
  using Take = absl::FunctionRef<void(int64_t first, const at::Tensor& frames)>;

  // `scope` holds conv.weight and conv.bias.
  ClipConvolution(const WeightScope& scope, int64_t in, int64_t out, const Stride3d& stride = {});

  // [T, H, W, in] -> [T', H', W', out], each extent divided by its stride and rounded up.
  at::Tensor Apply(const at::Tensor& clip) const;
  // The same of SiLU(norm(clip)), the norm over the whole clip.
  at::Tensor ApplyNormed(const at::Tensor& clip, const GroupNorm& norm) const;
  // The same, whose frames are not kept. `take` may write over those of `clip` that its frames were
  // made of. REQUIRES: no stride.
  void ApplyNormed(const at::Tensor& clip, const GroupNorm& norm, Take take) const;
  // The same of a clip whose sides are doubled and, if so said, all of its frames but the first.
  at::Tensor ApplyDoubled(const at::Tensor& clip, bool doubles_frames) const;

 private:
  // Writes what the convolution takes of the clip's frames [first, first + count).
  using Fill = absl::FunctionRef<void(int64_t first, int64_t count, const at::Tensor& into)>;

  void InRuns(at::IntArrayRef shape, const at::TensorOptions& like, Fill fill, Take take) const;
  at::Tensor Whole(at::IntArrayRef shape, const at::TensorOptions& like, Fill fill) const;

  Stride3d stride_;
  CausalConv3d convolution_;
};

// Norm, SiLU and convolution, twice, around a shortcut.
class ClipResnet {
 public:
  // `scope` holds norm1, conv1, norm2, conv2, and conv_shortcut where `in` is not `out`.
  ClipResnet(const WeightScope& scope, int64_t in, int64_t out, const GroupNorm::Options& norm);
  // [T, H, W, in] -> [T, H, W, out]
  at::Tensor Apply(const at::Tensor& clip) const;

 private:
  GroupNorm norm1_, norm2_;
  ClipConvolution conv1_, conv2_;
  std::optional<FrameConvolution> shortcut_;
};

}  // namespace kino::engine
