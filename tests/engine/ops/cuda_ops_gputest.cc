// The fused CUDA kernels against their composed forms. Skipped where there is no CUDA device.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "engine/ops/norm_modulate.h"
#include "engine/ops/rms_rotary.h"
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
  for (const int64_t width : {2048, 96, 2047}) {
    const at::Tensor x = Random({2, 77, width}, 1);
    const at::Tensor shift = Random({3, width}, 2);
    const at::Tensor scale = Random({3, width}, 3);
    const TokenSpans spans = {{0, 30, 2}, {30, 77, 0}};
    for (const NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
      EXPECT_LE(Distance(NormModulate(x, kind, 1e-6, shift, scale, spans),
                         NormModulateComposed(x, kind, 1e-6, shift, scale, spans)),
                Tolerance(GetParam()))
          << width;
    }
  }
}

TEST_P(CudaOpsTest, AddGatedEqualsComposed) {
  const at::Tensor x = Random({2, 77, 2048}, 1);
  const at::Tensor y = Random({2, 77, 2048}, 2);
  const at::Tensor gate = Random({2, 2048}, 3);
  at::Tensor expected = x.clone();
  expected.narrow(1, 0, 10).add_(y.narrow(1, 0, 10) * gate[1]);
  expected.narrow(1, 10, 67).add_(y.narrow(1, 10, 67) * gate[0]);
  at::Tensor fused = x.clone();
  at::Tensor consumed = y.clone();
  AddGated(fused, consumed, gate, {{0, 10, 1}, {10, 77, 0}});
  EXPECT_LE(Distance(fused, expected), Tolerance(GetParam()));
}

TEST_P(CudaOpsTest, RmsRotaryEqualsComposed) {
  const at::Tensor x = Random({2, 77, 2048}, 1);
  const at::Tensor weight = Random({2048}, 2);
  const at::Tensor angle = Random({77, 1024}, 3).to(at::kFloat);
  const RotaryTable table = {.cos = angle.cos(), .sin = angle.sin()};
  EXPECT_LE(Distance(RmsRotary(x.clone(), weight, 1e-5, table),
                     RmsRotaryComposed(x, weight, 1e-5, table)),
            Tolerance(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Dtypes, CudaOpsTest,
                         ::testing::Values(at::kFloat, at::kHalf, at::kBFloat16));

}  // namespace
}  // namespace kino::engine
