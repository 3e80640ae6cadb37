// The fused CUDA kernels against their composed forms. Skipped where there is no CUDA device.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "engine/ops/norm_modulate.h"
#include "engine/ops/norm_rotary.h"
#include "engine/ops/swiglu.h"
#include "tests/support/cuda_test.h"

namespace kino::engine {
namespace {

// One unit in the last place of values of about 8, for two orders of summation of the float32 sums.
double Tolerance(c10::ScalarType dtype) {
  return dtype == at::kFloat ? 1e-5 : dtype == at::kHalf ? 8e-3 : 6.3e-2;
}

class CudaOpsTest : public ::kino::testing::CudaTest<::testing::TestWithParam<c10::ScalarType>> {
 protected:
  at::Tensor Random(at::IntArrayRef shape, uint64_t seed) const {
    return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions())
        .to(device_, GetParam());
  }
  static double Distance(const at::Tensor& a, const at::Tensor& b) {
    return (a - b).abs().max().item<double>();
  }
};

TEST_P(CudaOpsTest, NormModulateEqualsComposed) {
  const TokenSpans spans = {{0, 30, 2}, {30, 77, 0}};
  for (const int64_t width : {2048, 96, 2047}) {
    const at::Tensor x = Random({2, 77, width}, 1);
    for (const at::Tensor& scale : {Random({3, width}, 3), Random({2, 3, width}, 3)}) {
      for (const at::Tensor& shift : {Random(scale.sizes(), 2), at::Tensor()}) {
        for (const NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
          for (const Rounding rounding : {Rounding::kEachStep, Rounding::kOnce}) {
            const NormStyle style = {.kind = kind, .eps = 1e-6, .rounding = rounding};
            EXPECT_LE(Distance(NormModulate(x, style, shift, scale, spans),
                               NormModulateComposed(x, style, shift, scale, spans)),
                      Tolerance(GetParam()))
                << width;
          }
        }
      }
    }
  }
}

TEST_P(CudaOpsTest, GatesEqualComposed) {
  const TokenSpans spans = {{0, 10, 1}, {10, 77, 0}};
  const at::Tensor x = Random({2, 77, 2048}, 1);
  const at::Tensor y = Random({2, 77, 2048}, 2);
  for (const at::Tensor& gate : {Random({2, 2048}, 3), Random({2, 2, 2048}, 3)}) {
    at::Tensor expected = x.clone(), fused = x.clone(), consumed = y.clone();
    AddGatedComposed(expected, consumed, gate, spans);
    consumed = y.clone();
    AddGated(fused, consumed, gate, spans);
    EXPECT_LE(Distance(fused, expected), Tolerance(GetParam()));
    expected = x.clone();
    fused = x.clone();
    AddNormGatedComposed(expected, y, 1e-6, gate, spans);
    AddNormGated(fused, y, 1e-6, gate, spans);
    EXPECT_LE(Distance(fused, expected), Tolerance(GetParam()));
  }
}

TEST_P(CudaOpsTest, SwiGluEqualsComposed) {
  for (const int64_t half : {8192, 33}) {
    const at::Tensor x = Random({2, 77, 2 * half}, 1);
    for (const bool gate_first : {false, true}) {
      EXPECT_LE(Distance(SwiGlu(x, gate_first), SwiGluComposed(x, gate_first)),
                Tolerance(GetParam()))
          << half;
    }
  }
}

TEST_P(CudaOpsTest, NormRotaryEqualsComposed) {
  const at::Tensor x = Random({2, 77, 2048}, 1);
  const at::Tensor angle = Random({77, 1024}, 3).to(at::kFloat);
  for (const RotaryTable& table :
       {RotaryTable{.cos = angle.cos(), .sin = angle.sin()}, RotaryTable{}}) {
    for (const int64_t head : {2048, 128}) {
      const at::Tensor weight = Random({head}, 2);
      const at::Tensor expected = NormRotaryComposed(x, weight, 1e-5, table);
      EXPECT_LE(Distance(NormRotary(x.clone(), weight, 1e-5, table), expected),
                Tolerance(GetParam()));
      const at::Tensor longer = Random({2, 90, 2048}, 4);
      NormRotaryInto(x, weight, 1e-5, table, longer.narrow(1, 13, 77));
      EXPECT_LE(Distance(longer.narrow(1, 13, 77), expected), Tolerance(GetParam()));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, CudaOpsTest,
                         ::testing::Values(at::kFloat, at::kHalf, at::kBFloat16));

}  // namespace
}  // namespace kino::engine
