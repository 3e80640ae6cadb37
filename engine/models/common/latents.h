// What latents are between the transformer and the VAE. Pure functions.
#pragma once

#include <ATen/core/Tensor.h>

namespace kino::engine {

// Of the latents of a request.
struct LatentGrid {
  int64_t frames = 0, height = 0, width = 0;
};

// Statistics of each channel, [C], as [1, C, 1, 1, 1] in float32.
at::Tensor ByChannel(const at::Tensor& statistics);

// [1, C, F, h, w] -> tokens [1, F * h * w, C], the frame slowest and the column fastest; and back.
at::Tensor PackLatents(const at::Tensor& latents);
at::Tensor UnpackLatents(const at::Tensor& tokens, int64_t frames, int64_t height, int64_t width);

// [B, C, F, h, w] -> tokens of p x p latents, [B, F * h/p * w/p, C * p * p], as a convolution of
// stride p sees them: the channel slowest. And from [B, ..., p * p * C], the channel fastest, to
// `shape`, [B, C, F, h, w].
at::Tensor PackPatches(const at::Tensor& latents, int64_t p);
at::Tensor UnpackPatches(const at::Tensor& tokens, at::IntArrayRef shape, int64_t p);

// What a VAE decodes: latents * std / scaling + mean.  latents: [1, C, F, h, w]; std and mean as
// ByChannel gives them -> float32.
at::Tensor DenormalizeLatents(const at::Tensor& latents, const at::Tensor& mean,
                              const at::Tensor& std, double scaling);

}  // namespace kino::engine
