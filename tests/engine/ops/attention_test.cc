#include "engine/ops/attention.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/core/memory_counter.h"
#include "engine/core/trace.h"

namespace kino::engine {
namespace {

at::Tensor Random(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions());
}

// Each head in float64, with the mask that the operator does without. groups: heads of keys.
at::Tensor Composed(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads,
                    int64_t groups) {
  const auto split = [](const at::Tensor& x, int64_t count) {
    return x.to(at::kDouble).unflatten(2, {count, -1}).transpose(1, 2);
  };
  const auto shared = [&](const at::Tensor& x) {
    return split(x, groups).repeat_interleave(heads / groups, 1);
  };
  const at::Tensor queries = split(q, heads);
  const at::Tensor later = at::ones({q.size(1), k.size(1)}, at::kBool).triu_(1);
  const at::Tensor scores =
      (at::matmul(queries, shared(k).transpose(2, 3)) / std::sqrt(queries.size(3)))
          .masked_fill(later, -std::numeric_limits<double>::infinity());
  return at::matmul(at::softmax(scores, -1), shared(v)).transpose(1, 2).flatten(2);
}

TEST(AttentionTest, CausalHeadsThatShareKeysAreTheComposedForm) {
  // Lengths around the kernel's tiles; one group, some, and one for each head.
  for (const int64_t length : {1, 2, 31, 200, 800}) {
    for (const auto& [heads, groups] : {std::pair{6, 1}, {6, 2}, {6, 6}, {5, 1}}) {
      const at::Tensor q = Random({2, length, heads * 8}, 1),
                       k = Random({2, length, groups * 8}, 2),
                       v = Random({2, length, groups * 8}, 3);
      const at::Tensor got = Attention(q, k, v, heads, {.causal = true});
      const double error =
          (got.to(at::kDouble) - Composed(q, k, v, heads, groups)).abs().max().item<double>();
      EXPECT_LT(error, 2e-6) << length << ": " << heads << " heads, " << groups << " of keys";
    }
  }
}

TEST(AttentionTest, SharedHeadsNeedNotBeCausal) {
  const at::Tensor q = Random({1, 7, 32}, 1), k = Random({1, 9, 16}, 2), v = Random({1, 9, 16}, 3);
  const at::Tensor wide_k = k.unflatten(2, {2, 8}).repeat_interleave(2, 2).flatten(2);
  const at::Tensor wide_v = v.unflatten(2, {2, 8}).repeat_interleave(2, 2).flatten(2);
  EXPECT_TRUE(at::equal(Attention(q, k, v, 4), Attention(q, wide_k, wide_v, 4)));
}

TEST(AttentionTest, WhatDoesNotFitIsABug) {
  const at::Tensor x = at::zeros({1, 4, 48});
  EXPECT_THROW(Attention(x, at::zeros({1, 4, 32}), at::zeros({1, 4, 32}), 6, {.causal = true}),
               c10::Error);  // 4 heads of keys for 6
  EXPECT_THROW(Attention(x, at::zeros({1, 4, 12}), at::zeros({1, 4, 12}), 6), c10::Error);
  EXPECT_THROW(Attention(x, at::zeros({1, 5, 48}), at::zeros({1, 5, 48}), 6, {.causal = true}),
               c10::Error);
  EXPECT_THROW(Attention(x, x, x, 6, {.causal = true}, at::zeros({1, 1, 4, 4})), c10::Error);
}

TEST(AttentionTest, CausalTracesHalfTheProductsAndNoPairOfTokens) {
  constexpr int64_t kTokens = 8192;
  for (const ComputeTarget& target : {ComputeTarget{.is_gpu = true}, ComputeTarget{.threads = 4}}) {
    const Trace trace(target);
    const auto options = at::TensorOptions(at::kMeta).dtype(at::kFloat);
    const at::Tensor q = at::empty({1, kTokens, 32}, options),
                     k = at::empty({1, kTokens, 8}, options);
    EXPECT_EQ(Attention(q, k, k, 4, {.causal = true}).sizes(), q.sizes());
    EXPECT_LT(trace.counts().device_peak, kTokens * kTokens);
    EXPECT_EQ(trace.counts().attention_flops, 2.0 * kTokens * kTokens * 32);
  }
}

double MaxError(const at::Tensor& got, const at::Tensor& expected) {
  return (got - expected).abs().max().item<double>();
}

// Without torch's fused kernel, as where it takes no such tensors.
class ComposedAttentionTest : public ::testing::Test {
 protected:
  ComposedAttentionTest() : fuses_(at::globalContext().userEnabledFlashSDP()) {
    at::globalContext().setSDPUseFlash(false);
  }
  ~ComposedAttentionTest() override { at::globalContext().setSDPUseFlash(fuses_); }

 private:
  const bool fuses_;
};

// 2,000 queries, 838 at a time, for 20,000 keys: 160 MB of weights, of which a third is held, in
// the three forms that torch's softmax of a product needs.
TEST_F(ComposedAttentionTest, QueriesGoSomeAtATime) {
  const c10::InferenceMode inference_mode;
  const at::Tensor q = Random({1, 2000, 4}, 1), k = Random({1, 20000, 4}, 2),
                   v = Random({1, 20000, 4}, 3);
  InstallMemoryCounter();
  ResetHostMemoryPeak();
  const int64_t before = HostMemoryCount().live_bytes;
  const at::Tensor got = Attention(q, k, v, 1);
  const int64_t peak = HostMemoryCount().peak_bytes - before;
  const at::Tensor weights = at::matmul(q, k.transpose(1, 2)) / std::sqrt(4.0);
  EXPECT_LE(MaxError(got, at::matmul(at::softmax(weights, -1), v)), 2e-6);
  EXPECT_LE(peak, 3 * (int64_t{1} << 24) * 4 + (1 << 20));
  EXPECT_GE(peak, (int64_t{1} << 24) * 4 / 2);
}

// A bias for each query, and one for all.
TEST_F(ComposedAttentionTest, QueriesTakeTheirBiasAlong) {
  const c10::InferenceMode inference_mode;
  const at::Tensor q = Random({1, 1000, 8}, 1), k = Random({1, 20000, 8}, 2),
                   v = Random({1, 20000, 8}, 3);
  for (const at::Tensor& bias : {Random({1, 2, 1000, 20000}, 4), Random({1, 1, 1, 20000}, 5)}) {
    const auto split = [](const at::Tensor& x) { return x.unflatten(2, {2, -1}).transpose(1, 2); };
    const at::Tensor weights =
        at::matmul(split(q), split(k).transpose(2, 3)) / std::sqrt(4.0) + bias;
    const at::Tensor expected =
        at::matmul(at::softmax(weights, -1), split(v)).transpose(1, 2).flatten(2);
    EXPECT_LE(MaxError(Attention(q, k, v, 2, {}, bias), expected), 2e-6);
  }
}

// 3,000 tokens of 4 heads, 1,398 queries at a time, in three parts of which the last is the rest.
TEST_F(ComposedAttentionTest, CausalQueriesGoSomeAtATime) {
  const c10::InferenceMode inference_mode;
  constexpr int64_t kTokens = 3000;
  const at::Tensor q = Random({1, kTokens, 16}, 1), k = Random({1, kTokens, 16}, 2),
                   v = Random({1, kTokens, 16}, 3);
  InstallMemoryCounter();
  ResetHostMemoryPeak();
  const int64_t before = HostMemoryCount().live_bytes;
  const at::Tensor got = Attention(q, k, v, 4, {.causal = true});
  const int64_t peak = HostMemoryCount().peak_bytes - before;
  const auto split = [](const at::Tensor& x) { return x.unflatten(2, {4, -1}).transpose(1, 2); };
  const at::Tensor later = at::ones({kTokens, kTokens}, at::kBool).triu(1);
  const at::Tensor weights =
      (at::matmul(split(q), split(k).transpose(2, 3)) / std::sqrt(4.0)).masked_fill(later, -1e30);
  const at::Tensor expected =
      at::matmul(at::softmax(weights, -1), split(v)).transpose(1, 2).flatten(2);
  EXPECT_LE(MaxError(got, expected), 2e-6);
  EXPECT_LE(peak, 3 * (int64_t{1} << 24) * 4 + (1 << 22));
}

}  // namespace
}  // namespace kino::engine
