// The step of euler_ancestral_rf.h, apart from the table so that that compiles without torch.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/scalar_tensor.h>
#include <c10/util/Exception.h>

#include <cmath>

#include "engine/samplers/euler_ancestral_rf.h"

namespace kino::engine {

at::Tensor EulerAncestralRfStep(const EulerAncestralRfConfig& config, const at::Tensor& sample,
                                const at::Tensor& model_output, const at::Tensor& noise,
                                float sigma, float sigma_next) {
  const bool draws = DrawsNoise(config, sigma_next);
  TORCH_CHECK(sample.sizes() == model_output.sizes() && draws == noise.defined() &&
                  (!draws || noise.sizes() == sample.sizes()),
              "EulerAncestralRfStep: sample ", sample.sizes(), ", model_output ",
              model_output.sizes(), draws ? ", a step that" : ", a step that never",
              " adds noise, noise ", noise.defined() ? noise.sizes() : at::IntArrayRef());
  // As upstream: in float32, each operation rounded by itself.
  const at::Tensor from = at::scalar_tensor(sigma, at::kFloat);
  const at::Tensor to = at::scalar_tensor(sigma_next, at::kFloat);
  const at::Tensor x = sample.to(at::kFloat);
  const at::Tensor denoised = x - from * model_output.to(at::kFloat);
  if (std::abs(sigma_next) < 1e-8) return denoised.to(sample.scalar_type());
  const at::Tensor down = to * (1.0 + (to / from - 1.0) * config.eta);
  const at::Tensor kept = 1.0 - to, kept_down = 1.0 - down, ratio = down / from;
  at::Tensor next = ratio * x + (1.0 - ratio) * denoised;
  if (draws) {
    const at::Tensor level =
        (to.pow(2) - down.pow(2) * kept.pow(2) / (kept_down.pow(2) + 1e-12)).clamp_min(0).sqrt();
    next = (kept / (kept_down + 1e-12)) * next + noise * level * config.s_noise;
  }
  return next.to(sample.scalar_type());
}

}  // namespace kino::engine
