// The dequantization kernels, and layers on a GPU, against their composed forms on the CPU. Skipped
// where there is no CUDA device.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "engine/quant/bitsandbytes.h"
#include "engine/quant/formats.h"
#include "engine/quant/row_scaled.h"
#include "tests/engine/quant/quant_cases.h"
#include "tests/support/cuda_test.h"

namespace kino::engine {
namespace {

constexpr QuantScheme kSchemes[] = {
    QuantScheme::kNf4,     QuantScheme::kNf4Dq, QuantScheme::kFp4,
    QuantScheme::kFp4Dq,   QuantScheme::kInt8,  QuantScheme::kInt8Wo,
    QuantScheme::kInt8Dyn, QuantScheme::kFp8Wo, QuantScheme::kFp8Dyn};

class CudaQuantTest : public ::kino::testing::CudaTest<
                          ::testing::TestWithParam<std::tuple<QuantScheme, c10::ScalarType>>> {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (!opened()) return;
    format_ = MakeWeightFormat(std::get<0>(GetParam()), 6.0, dtype());
  }
  c10::ScalarType dtype() const { return std::get<1>(GetParam()); }
  at::Tensor Random(at::IntArrayRef shape, uint64_t seed) const {
    return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed)).to(dtype());
  }
  std::vector<at::Tensor> OnDevice(std::vector<at::Tensor> parts) const {
    for (at::Tensor& part : parts) part = part.to(device_);
    return parts;
  }

  std::shared_ptr<const WeightFormat> format_;
  c10::InferenceMode inference_mode_;
};

TEST_P(CudaQuantTest, DecodesBitEqualToTheCpu) {
  for (const auto& shape : {std::vector<int64_t>{2048, 2048}, {300, 257}, {5, 7}, {1, 1}}) {
    const std::vector<at::Tensor> parts = format_->Encode(Random(shape, 1));
    EXPECT_TRUE(at::equal(format_->Decode(OnDevice(parts), shape, dtype()).cpu(),
                          format_->Decode(parts, shape, dtype())));
  }
}

TEST_P(CudaQuantTest, EncodesOnTheDevice) {
  const at::Tensor weight = Random({300, 257}, 2);
  const at::Tensor expected = format_->Decode(format_->Encode(weight), weight.sizes(), at::kFloat);
  const at::Tensor got =
      format_->Decode(format_->Encode(weight.to(device_)), weight.sizes(), at::kFloat).cpu();
  // A mean or quotient rounded otherwise may tip a code: the values stay near.
  EXPECT_LE((got - expected).abs().mean().item<double>(),
            1e-4 * expected.abs().mean().item<double>());
}

TEST_P(CudaQuantTest, LayersEqualTheCpu) {
  const std::vector<int64_t> shape = {96, 128};
  const std::vector<at::Tensor> parts = format_->Encode(Random(shape, 3));
  const at::Tensor bias = Random({96}, 4);
  for (const int64_t tokens : {1, 33, 1500}) {
    at::Tensor x = Random({2, tokens, 128}, 5);
    x.select(2, 7).mul_(30);
    const at::Tensor got =
        format_->Linear(x.to(device_), OnDevice(parts), shape, bias.to(device_)).cpu();
    // at::_scaled_mm sums float8 products at less than float32's precision.
    const double tolerance =
        std::get<0>(GetParam()) == QuantScheme::kFp8Dyn ? 1.0 / 64 : 2 * SumTolerance(dtype());
    EXPECT_LE(RelativeError(got, format_->Linear(x, parts, shape, bias)), tolerance) << tokens;
  }
}

INSTANTIATE_TEST_SUITE_P(Schemes, CudaQuantTest,
                         ::testing::Combine(::testing::ValuesIn(kSchemes),
                                            ::testing::Values(at::kFloat, at::kHalf,
                                                              at::kBFloat16)),
                         [](const auto& test) {
                           return absl::StrCat(QuantSchemeName(std::get<0>(test.param)), "_",
                                               c10::toString(std::get<1>(test.param)));
                         });

using CudaBnb4BitTest = ::kino::testing::CudaTest<>;

TEST_F(CudaBnb4BitTest, KernelEqualsComposedOnTheDevice) {
  const c10::InferenceMode inference_mode;
  for (const int64_t block : {32, 64, 4096}) {
    for (const bool nested : {false, true}) {
      const Bnb4BitLayout layout = {.type = Bnb4BitType::kFp4, .nested = nested, .block = block};
      const auto format = MakeBnb4Bit(layout);
      const at::Tensor weight = at::randn({301, 257}).to(device_);
      const auto parts = format->Encode(weight);
      EXPECT_TRUE(at::equal(format->Decode(parts, weight.sizes(), at::kBFloat16),
                            DecodeBnb4BitComposed(parts, weight.sizes(), at::kBFloat16, layout)));
    }
  }
}

using CudaLargeWeightTest = ::kino::testing::CudaTest<>;

// A launch has 2^24 threads at most (kMaxBlocks in dequantize.cu): here each takes two bytes or
// elements, and some a third.
TEST_F(CudaLargeWeightTest, ThreadsStrideOverPackedCodes) {
  const c10::InferenceMode inference_mode;
  const std::vector<int64_t> shape = {16423, 4096};
  ASSERT_GT(shape[0] * shape[1] / 2, 2 << 24);
  for (const bool nested : {false, true}) {
    const Bnb4BitLayout layout = {.type = Bnb4BitType::kNf4, .nested = nested};
    const auto format = MakeBnb4Bit(layout);
    std::vector<at::Tensor> parts;
    for (const PartSpec& part : format->Parts(shape)) {
      const at::TensorOptions options = at::TensorOptions(part.dtype).device(device_);
      parts.push_back(part.dtype == at::kByte ? at::randint(256, part.shape, options)
                                              : at::rand(part.shape, options));
    }
    EXPECT_TRUE(at::equal(format->Decode(parts, shape, at::kBFloat16),
                          DecodeBnb4BitComposed(parts, shape, at::kBFloat16, layout)))
        << format->name();
  }
}

TEST_F(CudaLargeWeightTest, ThreadsStrideOverScaledRows) {
  const c10::InferenceMode inference_mode;
  const int64_t rows = 8211, columns = 4096;
  ASSERT_GT(rows * columns, 2 << 24);
  const at::Tensor scales = at::rand({rows}, at::TensorOptions(at::kFloat).device(device_));
  const at::Tensor bytes =
      at::randint(-100, 101, {rows, columns}, at::TensorOptions(at::kChar).device(device_));
  for (const at::Tensor& values : {bytes, bytes.to(at::kFloat).to(at::kFloat8_e4m3fn)}) {
    EXPECT_TRUE(at::equal(DecodeRows(values, scales, 1, at::kBFloat16),
                          DecodeRowsComposed(values, scales, 1, at::kBFloat16)))
        << values.scalar_type();
  }
}

}  // namespace
}  // namespace kino::engine
