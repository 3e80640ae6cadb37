#include "engine/models/common/latents.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/exp.h>

#include <vector>

namespace kino::engine {

at::Tensor ByChannel(const at::Tensor& statistics) {
  return statistics.to(at::kFloat).view({1, -1, 1, 1, 1});
}

at::Tensor PackLatents(const at::Tensor& latents) {
  return latents.permute({0, 2, 3, 4, 1}).flatten(1, 3).contiguous();
}

at::Tensor UnpackLatents(const at::Tensor& tokens, int64_t frames, int64_t height, int64_t width) {
  return tokens.unflatten(1, {frames, height, width}).permute({0, 4, 1, 2, 3});
}

at::Tensor PackPatches(const at::Tensor& latents, int64_t p, int64_t n) {
  const int64_t batch = latents.size(0), channels = latents.size(1), frames = latents.size(2) / n,
                height = latents.size(3) / p, width = latents.size(4) / p;
  return latents.reshape({batch, channels, frames, n, height, p, width, p})
      .permute({0, 2, 4, 6, 1, 3, 5, 7})
      .reshape({batch, frames * height * width, channels * n * p * p});
}

at::Tensor UnpackPatches(const at::Tensor& tokens, at::IntArrayRef shape, int64_t p) {
  return tokens.view({shape[0], shape[2], shape[3] / p, shape[4] / p, p, p, shape[1]})
      .permute({0, 6, 1, 2, 4, 3, 5})
      .reshape(shape);
}

at::Tensor SamplePosterior(const at::Tensor& moments, NoiseSource& noise) {
  const std::vector<at::Tensor> parts = moments.chunk(2, 1);
  const at::Tensor deviation = at::exp(parts[1].clamp(-30.0, 20.0) * 0.5);
  return parts[0] +
         deviation * noise.Randn(parts[0].sizes(), parts[0].scalar_type(), parts[0].device());
}

at::Tensor PosteriorMode(const at::Tensor& moments) { return moments.chunk(2, 1)[0]; }

at::Tensor DenormalizeLatents(const at::Tensor& latents, const at::Tensor& mean,
                              const at::Tensor& std, double scaling) {
  return latents * std / scaling + mean;
}

}  // namespace kino::engine
