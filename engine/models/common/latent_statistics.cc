#include "engine/models/common/latent_statistics.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/std.h>

namespace kino::engine {

at::Tensor MatchStatistics(const at::Tensor& latents, const at::Tensor& reference, double factor) {
  // torch's std_mean has no form for meta tensors; in float32, rounded once.
  struct Statistics {
    explicit Statistics(const at::Tensor& x) {
      const at::Tensor values = x.to(at::kFloat).flatten(2).unflatten(2, {-1, 1, 1});
      const at::Tensor centre = values.mean(2, /*keepdim=*/true);
      const auto degrees = static_cast<double>(values.size(2) - 1);
      mean = centre.to(x.scalar_type());
      deviation = ((values - centre).square().sum(2, /*keepdim=*/true) / degrees)
                      .sqrt()
                      .to(x.scalar_type());
    }
    at::Tensor mean, deviation;  // [B, C, 1, 1, 1]
  };
  const Statistics own(latents), wanted(reference);
  const at::Tensor matched = (latents - own.mean) / own.deviation * wanted.deviation + wanted.mean;
  return at::lerp(latents, matched, factor);
}

at::Tensor LikenStatistics(const at::Tensor& latents, const at::Tensor& reference, double factor) {
  constexpr double kEps = 1e-6;
  const auto mean = [](const at::Tensor& x) { return x.mean({2, 3, 4}, /*keepdim=*/true); };
  const auto deviation = [](const at::Tensor& x) {
    return at::std(x, at::IntArrayRef{2, 3, 4}, /*unbiased=*/true, /*keepdim=*/true);
  };
  const at::Tensor own_mean = mean(latents), own_deviation = deviation(latents);
  const at::Tensor wanted_mean = (1.0 - factor) * own_mean + factor * mean(reference);
  const at::Tensor wanted_deviation =
      ((1.0 - factor) * own_deviation + factor * deviation(reference)).clamp_min(kEps);
  return (latents - own_mean) / (own_deviation + kEps) * wanted_deviation + wanted_mean;
}

at::Tensor ToneMap(const at::Tensor& latents, double compression) {
  const double strength = compression * 0.75;
  const at::Tensor largeness = at::sigmoid(4.0 * strength * (latents.abs() - 1.0));
  return latents * (1.0 - 0.8 * strength * largeness);
}

at::Tensor FuseOverlap(const at::Tensor& first, const at::Tensor& second, int64_t overlap) {
  if (overlap <= 1) return at::cat({first, second}, 2);
  const int64_t alone = first.size(2) - overlap;
  const at::Tensor weights =
      at::linspace(1, 0, overlap + 2, first.options()).narrow(0, 1, overlap).view({1, 1, -1, 1, 1});
  const at::Tensor blended =
      weights * first.narrow(2, alone, overlap) + (1 - weights) * second.narrow(2, 0, overlap);
  return at::cat(
      {first.narrow(2, 0, alone), blended, second.narrow(2, overlap, second.size(2) - overlap)}, 2);
}

}  // namespace kino::engine
