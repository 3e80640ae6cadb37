// What latents are between the transformer and the VAE. Pure functions, but for the draw.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/models/common/noise.h"

namespace kino::engine {

// How many latents there are along each axis.
struct LatentGrid {
  int64_t frames = 0, height = 0, width = 0;
  int64_t count() const { return frames * height * width; }
};

// Statistics of each channel, [C], as [1, C, 1, 1, 1] in float32.
at::Tensor ByChannel(const at::Tensor& statistics);

// [1, C, F, h, w] -> tokens [1, F * h * w, C], the frame slowest and the column fastest; and back.
at::Tensor PackLatents(const at::Tensor& latents);
at::Tensor UnpackLatents(const at::Tensor& tokens, int64_t frames, int64_t height, int64_t width);

// [B, C, F, h, w] -> tokens of n x p x p latents, [B, F/n * h/p * w/p, C * n * p * p], as a
// convolution of stride n, p, p sees them: the channel slowest. And from [B, ..., p * p * C], the
// channel fastest, to `shape`, [B, C, F, h, w].
at::Tensor PackPatches(const at::Tensor& latents, int64_t p, int64_t n = 1);
at::Tensor UnpackPatches(const at::Tensor& tokens, at::IntArrayRef shape, int64_t p);

// A draw from a VAE's distribution of latents (diffusers' DiagonalGaussianDistribution.sample), in
// its dtype; and its most likely latents, without a draw.  moments: [1, 2 * C, F, h, w], means,
// then log variances -> [1, C, F, h, w].
at::Tensor SamplePosterior(const at::Tensor& moments, NoiseSource& noise);
at::Tensor PosteriorMode(const at::Tensor& moments);

// What a VAE decodes: latents * std / scaling + mean.  latents: [1, C, F, h, w]; std and mean as
// ByChannel gives them -> float32.
at::Tensor DenormalizeLatents(const at::Tensor& latents, const at::Tensor& mean,
                              const at::Tensor& std, double scaling);

}  // namespace kino::engine
