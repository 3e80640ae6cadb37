// The steps of flow_match_euler.h, apart from the tables so that those compile without torch.
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/scalar_tensor.h>
#include <c10/util/Exception.h>

#include "engine/samplers/flow_match_euler.h"

namespace kino::engine {

at::Tensor EulerStep(const at::Tensor& sample, const at::Tensor& model_output, float sigma,
                     float sigma_next) {
  TORCH_CHECK(sample.sizes() == model_output.sizes(), "EulerStep: sample ", sample.sizes(),
              ", model_output ", model_output.sizes());
  // As upstream: a tensor without axes, on the output's device, and the left operand. So it does
  // not raise the product's type, and with a bfloat16 output it is itself rounded to bfloat16
  // first.
  const at::Tensor dt =
      at::scalar_tensor(sigma_next - sigma, model_output.options().dtype(at::kFloat));
  return sample.to(at::kFloat).add(dt.mul(model_output)).to(model_output.scalar_type());
}

at::Tensor EulerStepPerToken(const at::Tensor& sample, const at::Tensor& model_output,
                             const at::Tensor& per_token_timesteps,
                             const FlowMatchSchedule& schedule, int num_train_timesteps) {
  TORCH_CHECK(sample.dim() == 3 && sample.sizes() == model_output.sizes() &&
                  per_token_timesteps.sizes() == sample.sizes().slice(0, 2),
              "EulerStepPerToken: sample ", sample.sizes(), ", model_output ", model_output.sizes(),
              ", timesteps ", per_token_timesteps.sizes());
  const at::Tensor current = per_token_timesteps.div(num_train_timesteps);  // [B, L]
  const int64_t count = static_cast<int64_t>(schedule.sigmas.size());
  const at::Tensor sigmas =
      at::from_blob(const_cast<float*>(schedule.sigmas.data()), {count, 1, 1}, at::kFloat)
          .to(current.device());  // [steps + 1, 1, 1]
  const at::Tensor is_lower = sigmas.lt(current.unsqueeze(0).sub(1e-6));
  const at::Tensor next = is_lower.mul(sigmas).amax(0);  // [B, L]; 0 where no sigma is lower
  const at::Tensor dt = current.unsqueeze(-1).sub(next.unsqueeze(-1));
  return sample.to(at::kFloat).add(dt.mul(model_output));
}

}  // namespace kino::engine
