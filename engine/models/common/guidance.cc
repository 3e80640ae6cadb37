#include "engine/models/common/guidance.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/std.h>

#include <cmath>
#include <numbers>
#include <numeric>
#include <vector>

namespace kino::engine {

at::Tensor Guide(const at::Tensor& pair, double scale) {
  const at::Tensor negative = pair.narrow(0, 0, 1), positive = pair.narrow(0, 1, 1);
  return (positive - negative).mul_(scale).add_(negative);
}

double DynamicGuidance(double scale, int timestep, int num_inference_steps) {
  const double steps = num_inference_steps;
  const double turn = std::numbers::pi * std::pow((steps - timestep) / steps, 5.0);
  return 1 + scale * ((1 - std::cos(turn)) / 2);
}

at::Tensor RescaleGuidance(const at::Tensor& guided, const at::Tensor& positive, double rescale) {
  std::vector<int64_t> axes(static_cast<size_t>(guided.dim() - 1));
  std::iota(axes.begin(), axes.end(), 1);
  const at::Tensor ratio = at::std(positive, axes, /*unbiased=*/true, /*keepdim=*/true) /
                           at::std(guided, axes, /*unbiased=*/true, /*keepdim=*/true);
  return rescale * (guided * ratio) + (1 - rescale) * guided;
}

}  // namespace kino::engine
