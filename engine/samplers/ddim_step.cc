// The steps of ddim.h, apart from the tables so that those compile without torch.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/scalar_tensor.h>
#include <c10/util/Exception.h>

#include <cmath>

#include "engine/samplers/ddim.h"

namespace kino::engine {
namespace {

// As upstream: a tensor without axes, on the CPU, and the left operand. So it does not raise the
// product's type, and with a bfloat16 tensor on the CPU it is itself rounded to bfloat16 first.
at::Tensor Times(double factor, const at::Tensor& x) {
  return at::scalar_tensor(factor, at::TensorOptions().dtype(at::kDouble)).mul(x);
}

// What the model's v-prediction says of the picture.
at::Tensor Denoised(const at::Tensor& sample, const at::Tensor& model_output, double alpha) {
  TORCH_CHECK(sample.sizes() == model_output.sizes(), "a step: sample ", sample.sizes(),
              ", model_output ", model_output.sizes());
  return Times(std::sqrt(alpha), sample) - Times(std::sqrt(1 - alpha), model_output);
}

// log of the root of the signal-to-noise ratio; infinite where there is no noise, or nothing else.
double LogSnr(double alpha) { return std::log(std::sqrt(alpha / (1 - alpha))); }

}  // namespace

at::Tensor DdimStep(const at::Tensor& sample, const at::Tensor& model_output,
                    const DdimStepLevels& levels) {
  const double a = std::sqrt((1 - levels.next_alpha) / (1 - levels.alpha));
  const double b = std::sqrt(levels.next_alpha) - std::sqrt(levels.alpha) * a;
  return Times(a, sample) + Times(b, Denoised(sample, model_output, levels.alpha));
}

at::Tensor DpmSolverStep(const at::Tensor& sample, const at::Tensor& model_output,
                         at::Tensor& denoised, const DdimSchedule& schedule, int step,
                         absl::FunctionRef<at::Tensor()> draw) {
  const DdimStepLevels& levels = schedule[static_cast<size_t>(step)];
  const double from = LogSnr(levels.alpha), h = LogSnr(levels.next_alpha) - from;
  const double of_sample = std::sqrt((1 - levels.next_alpha) / (1 - levels.alpha)) * std::exp(-h);
  const double of_denoised = std::expm1(-2 * h) * std::sqrt(levels.next_alpha);
  const double of_noise = std::sqrt(1 - levels.next_alpha) * std::sqrt(1 - std::exp(-2 * h));
  const at::Tensor before = denoised;
  denoised = Denoised(sample, model_output, levels.alpha);
  at::Tensor noise = draw(), direction = denoised;
  if (before.defined() && !levels.reaches_end) {
    noise = draw();
    const double r = (from - LogSnr(schedule[static_cast<size_t>(step) - 1].alpha)) / h;
    direction = Times(1 + 1 / (2 * r), denoised) - Times(1 / (2 * r), before);
  }
  return Times(of_sample, sample) - Times(of_denoised, direction) + Times(of_noise, noise);
}

at::Tensor AddNoise(const at::Tensor& original, const at::Tensor& noise, double alpha) {
  const at::Tensor share = at::scalar_tensor(alpha, original.options());
  return share.sqrt() * original + (1 - share).sqrt() * noise;
}

}  // namespace kino::engine
