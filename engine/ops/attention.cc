#include "engine/ops/attention.h"

#include <ATen/ops/scaled_dot_product_attention.h>

namespace kino::engine {

at::Tensor Attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads,
                     const AttentionContext& context, const at::Tensor& bias) {
  const auto split = [heads](const at::Tensor& x) {
    return x.unflatten(2, {heads, -1}).transpose(1, 2);
  };
  const std::optional<double> scale =
      context.scale == 0 ? std::nullopt : std::optional<double>(context.scale);
  const std::optional<at::Tensor> mask =
      bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt;
  const at::Tensor out =
      at::scaled_dot_product_attention(split(q), split(k), split(v), mask, /*dropout_p=*/0.0,
                                       /*is_causal=*/false, scale);
  return out.transpose(1, 2).flatten(2);
}

}  // namespace kino::engine
