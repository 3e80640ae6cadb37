#include "engine/ops/swiglu.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

namespace kino::engine {
namespace {

TEST(SwiGlu, IsItsComposedForm) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const int64_t half : {1, 7, 64}) {
      for (const bool gate_first : {false, true}) {
        const at::Tensor x =
            at::randn({3, 5, 2 * half}, at::make_generator<at::CPUGeneratorImpl>(uint64_t{1}),
                      at::TensorOptions())
                .to(dtype);
        const at::Tensor got = SwiGlu(x, gate_first), expected = SwiGluComposed(x, gate_first);
        ASSERT_EQ(got.sizes(), expected.sizes());
        EXPECT_EQ(got.scalar_type(), dtype);
        // A step of bfloat16 for values of about 8: its SiLU may be rounded the other way.
        EXPECT_LE((got - expected).abs().max().item<double>(), dtype == at::kFloat ? 2e-6 : 6.3e-2);
        EXPECT_GT((got - SwiGluComposed(x, !gate_first)).abs().max().item<double>(), 0.1);
      }
    }
  }
}

TEST(SwiGlu, AnOddWidthIsRefused) { EXPECT_THROW(SwiGlu(at::randn({2, 3}), false), c10::Error); }

}  // namespace
}  // namespace kino::engine
