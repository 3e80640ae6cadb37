#include "engine/text/text_layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/embedding.h>

#include "absl/strings/str_cat.h"
#include "engine/core/status_bridge.h"

namespace kino::engine {

at::Tensor EmbedTokens(const Component& encoder, const WeightRef& table, int64_t vocabulary,
                       const at::Tensor& ids) {
  TORCH_CHECK(ids.is_cpu(), "token ids are on ", ids.device().str(), ", expected the host");
  const int64_t lowest = ids.min().item<int64_t>(), highest = ids.max().item<int64_t>();
  if (lowest < 0 || highest >= vocabulary) {
    throw StatusError(absl::InvalidArgumentError(
        absl::StrCat("token id ", lowest < 0 ? lowest : highest, ", but the text encoder '",
                     encoder.weights().checkpoint().folder(), "' has a vocabulary of ", vocabulary,
                     ": its tokenizer is another model's")));
  }
  return at::embedding(table.get(), ids.to(encoder.device()));
}

at::Tensor RmsNorm(const at::Tensor& x, const WeightRef& weight, double eps) {
  const at::Tensor variance = x.to(at::kFloat).pow(2).mean(-1, /*keepdim=*/true);
  const PinnedTensor scale = weight.get();
  return (x * (variance + eps).rsqrt_()).to(scale->scalar_type()).mul_(scale);
}

}  // namespace kino::engine
