#include "engine/ops/attention.h"

#include <ATen/SDPBackend.h>
#include <ATen/ops/_fused_sdp_choice.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <algorithm>

#include "engine/core/kernel_counter.h"
#include "engine/core/trace.h"
#include "engine/ops/linear.h"

namespace kino::engine {
namespace {

// Queries and keys that torch's CPU kernel takes at a time (FlashAttentionKernel.cpp).
constexpr int64_t kKeysAtOnce = 512;
int64_t QueriesAtOnce(int64_t length) { return length >= 768 ? 256 : length >= 192 ? 64 : 32; }

// What torch's fused kernels hold: the output, a sum for each row, and on a CPU each thread's tile.
at::Tensor AttentionOnMeta(const at::Tensor& q, const at::Tensor& k, int64_t heads) {
  const int64_t batch = q.size(0), length = q.size(1), width = q.size(2);
  at::Tensor out = at::empty({batch, length, width}, q.options());
  const at::TensorOptions floats = q.options().dtype(at::kFloat);
  const at::Tensor sums = at::empty({batch, heads, length}, floats);
  if (!RunsOnCpu(q)) return out;
  const int64_t queries = std::min(length, QueriesAtOnce(length));
  const int64_t keys = std::min(k.size(1), kKeysAtOnce),
                threads = Trace::Current()->target().threads;
  const at::Tensor tiles =
      at::empty({threads, queries * (keys + 2 + width / std::max<int64_t>(heads, 1))}, floats);
  const at::Tensor rounded =
      at::empty({q.scalar_type() == at::kFloat ? 0 : threads, queries * keys}, q.options());
  return out;
}

// Keys or values once for each head of queries. Copies, since of torch's kernels not all share
// heads: those that do not would hold the whole product of queries and keys.
at::Tensor ForAllHeads(const at::Tensor& x, int64_t heads, int64_t head) {
  const int64_t groups = x.size(2) / head;
  return x.unflatten(2, {groups, 1, head})
      .expand({x.size(0), x.size(1), groups, heads / groups, head})
      .reshape({x.size(0), x.size(1), heads * head});
}

// Weights, of queries for keys, that torch's composed form is given to hold.
constexpr int64_t kWeightsAtOnce = int64_t{1} << 24;

// q: [B, heads, L, K]; k, v: [B, heads, M, K] -> [B, heads, L, K].
at::Tensor FusedOrInParts(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const std::optional<at::Tensor>& mask, bool causal,
                          std::optional<double> scale) {
  const int64_t length = q.size(2), of_query = q.size(0) * q.size(1) * k.size(2);
  const int64_t most = std::max<int64_t>(1, kWeightsAtOnce / std::max<int64_t>(of_query, 1));
  const auto composed = static_cast<int64_t>(at::SDPBackend::math);
  if (most >= length || at::_fused_sdp_choice(q, k, v, mask, 0.0, causal, scale) != composed)
    return at::scaled_dot_product_attention(q, k, v, mask, /*dropout_p=*/0.0, causal, scale);
  at::Tensor out = at::empty_like(q);
  for (int64_t first = 0; first < length; first += most) {
    const int64_t count = std::min(most, length - first);
    std::optional<at::Tensor> bias = mask;
    if (causal) {
      bias = at::ones({count, k.size(2)}, q.options().dtype(at::kBool)).tril_(first);
    } else if (mask && mask->size(-2) == length) {
      bias = mask->narrow(-2, first, count);
    }
    out.narrow(2, first, count)
        .copy_(at::scaled_dot_product_attention(q.narrow(2, first, count), k, v, bias,
                                                /*dropout_p=*/0.0, /*is_causal=*/false, scale));
  }
  return out;
}

}  // namespace

at::Tensor Attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads,
                     const AttentionContext& context, const at::Tensor& bias) {
  if (k.size(2) < q.size(2)) {
    const int64_t head = q.size(2) / heads;
    TORCH_CHECK(k.size(2) % head == 0 && heads % (k.size(2) / head) == 0,
                "attention: the keys are ", k.sizes(), ", the queries ", q.sizes(), " of ", heads,
                " heads, which no number of heads of keys divides");
    return Attention(q, ForAllHeads(k, heads, head), ForAllHeads(v, heads, head), heads, context,
                     bias);
  }
  TORCH_CHECK(!context.causal || (!bias.defined() && q.size(1) == k.size(1)),
              "causal attention: the queries are ", q.sizes(), ", the keys ", k.sizes(),
              ", expected as many, and no bias");
  if (ComputesInFloat(q)) {
    return Attention(q.to(at::kFloat), k.to(at::kFloat), v.to(at::kFloat), heads, context,
                     bias.defined() ? bias.to(at::kFloat) : bias)
        .to(q.scalar_type());
  }
  // Two products of every query with every key, or with half of them.
  const double flops = (context.causal ? 2.0 : 4.0) * static_cast<double>(q.numel()) *
                       static_cast<double>(k.size(1));
  CountFlops(FlopKind::kAttention, flops);
  if (q.is_meta()) {
    at::Tensor out = AttentionOnMeta(q, k, heads);
    CountKernel({q, k, v, bias}, {out}, flops);
    return out;
  }
  const auto split = [heads](const at::Tensor& x) {
    return x.unflatten(2, {heads, -1}).transpose(1, 2);
  };
  const std::optional<double> scale =
      context.scale == 0 ? std::nullopt : std::optional<double>(context.scale);
  const std::optional<at::Tensor> mask =
      bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt;
  const at::Tensor out = FusedOrInParts(split(q), split(k), split(v), mask, context.causal, scale);
  return out.transpose(1, 2).flatten(2);
}

at::Tensor AttentionByRow(const at::Tensor& q, const std::vector<at::Tensor>& k,
                          const std::vector<at::Tensor>& v, int64_t heads) {
  if (k.size() == 1) return Attention(q, k[0], v[0], heads);
  std::vector<at::Tensor> rows;
  for (size_t row = 0; row < k.size(); ++row)
    rows.push_back(Attention(q.narrow(0, static_cast<int64_t>(row), 1), k[row], v[row], heads));
  return at::cat(rows, 0);
}

}  // namespace kino::engine
