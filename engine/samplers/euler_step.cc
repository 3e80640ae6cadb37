// The steps of flow_match_euler.h, apart from the tables so that those compile without torch.
#include <ATen/core/Tensor.h>
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

}  // namespace kino::engine
