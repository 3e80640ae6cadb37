// The steps of euler_ancestral.h, apart from the tables so that those compile without torch.
#include <ATen/core/Tensor.h>
#include <ATen/ops/scalar_tensor.h>
#include <c10/util/Exception.h>

#include "engine/samplers/euler_ancestral.h"

namespace kino::engine {
namespace {

// A noise level as upstream has it: a tensor without axes on the CPU. As the left operand of a
// half-precision tensor on the CPU it is rounded to that tensor's type first, as the right one not.
at::Tensor Level(float sigma) { return at::scalar_tensor(sigma, at::kFloat); }

at::Tensor Root(const at::Tensor& level) { return level.pow(0.5); }

}  // namespace

at::Tensor ScaleNoise(const at::Tensor& noise, const EulerAncestralSchedule& schedule) {
  return noise.mul(Level(schedule.init_noise_sigma));
}

at::Tensor ScaleModelInput(const at::Tensor& sample, float sigma) {
  return sample.div(Root(Level(sigma).pow(2).add(1)));
}

at::Tensor EulerAncestralStep(EulerAncestralConfig::Prediction prediction, const at::Tensor& sample,
                              const at::Tensor& model_output, const at::Tensor& noise, float sigma,
                              float sigma_next) {
  TORCH_CHECK(sample.sizes() == model_output.sizes() && noise.sizes() == model_output.sizes() &&
                  noise.scalar_type() == model_output.scalar_type(),
              "EulerAncestralStep: sample ", sample.sizes(), ", model_output ",
              model_output.sizes(), " ", model_output.scalar_type(), ", noise ", noise.sizes(), " ",
              noise.scalar_type());
  const at::Tensor from = Level(sigma), to = Level(sigma_next), x = sample.to(at::kFloat);
  at::Tensor original;  // the sample without its noise
  if (prediction == EulerAncestralConfig::Prediction::kEpsilon) {
    original = x.sub(from.mul(model_output));
  } else {
    const at::Tensor variance = from.pow(2).add(1);
    original = model_output.mul(from.neg().div(Root(variance))).add(x.div(variance));
  }
  const at::Tensor up = Root(to.pow(2).mul(from.pow(2).sub(to.pow(2))).div(from.pow(2)));
  const at::Tensor down = Root(to.pow(2).sub(up.pow(2)));
  const at::Tensor derivative = x.sub(original).div(from);
  return x.add(derivative.mul(down.sub(from))).add(noise.mul(up)).to(model_output.scalar_type());
}

}  // namespace kino::engine
