// Every bitsandbytes and torchao scheme against the library itself (quant_fixtures.py).
#include "engine/quant/formats.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/ascii.h"
#include "engine/core/status_bridge.h"
#include "engine/quant/bitsandbytes.h"
#include "engine/quant/int8_matmul.h"
#include "engine/quant/row_scaled.h"
#include "tests/engine/quant/quant_cases.h"

namespace kino::engine {
namespace {

using ::testing::HasSubstr;

struct Scheme {
  QuantScheme scheme;
  const char* file;
};
constexpr Scheme kSchemes[] = {
    {QuantScheme::kNf4, "bnb4.safetensors"},        {QuantScheme::kNf4Dq, "bnb4.safetensors"},
    {QuantScheme::kFp4, "bnb4.safetensors"},        {QuantScheme::kFp4Dq, "bnb4.safetensors"},
    {QuantScheme::kInt8, "bnb8.safetensors"},       {QuantScheme::kInt8Wo, "torchao.safetensors"},
    {QuantScheme::kInt8Dyn, "torchao.safetensors"}, {QuantScheme::kFp8Wo, "torchao.safetensors"},
    {QuantScheme::kFp8Dyn, "torchao.safetensors"},
};

class FormatsTest : public ::testing::TestWithParam<Scheme> {
 protected:
  void SetUp() override { at::set_num_threads(1); }

  QuantCases cases_{GetParam().file};
  std::string prefix_ = absl::StrCat(QuantSchemeName(GetParam().scheme), "/");

  std::shared_ptr<const WeightFormat> Format(double threshold = 6.0) const {
    return MakeWeightFormat(GetParam().scheme, threshold, at::kFloat);
  }

  c10::InferenceMode inference_mode_;
};

TEST_P(FormatsTest, EncodesBitEqualToTheLibrary) {
  const std::vector<std::string> names = cases_.CasesOf(prefix_);
  ASSERT_GE(names.size(), 24u);
  for (const std::string& name : names) {
    const std::vector<at::Tensor> expected = cases_.Parts(name);
    const std::vector<at::Tensor> got = Format()->Encode(cases_.Get(name + "weight"));
    EXPECT_EQ(got.size(), expected.size()) << name;
    if (got.size() != expected.size()) continue;
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i].scalar_type(), expected[i].scalar_type()) << name << " part " << i;
      const bool is_float8 = got[i].scalar_type() == at::kFloat8_e4m3fn;
      EXPECT_TRUE(is_float8 ? at::equal(got[i].view(at::kByte), expected[i].view(at::kByte))
                            : at::equal(got[i], expected[i]))
          << name << " part " << i;
    }
  }
}

TEST_P(FormatsTest, DecodesBitEqualToTheLibrary) {
  for (const std::string& name : cases_.CasesOf(prefix_)) {
    const at::Tensor expected = cases_.Get(name + "decoded");
    const at::Tensor got =
        Format()->Decode(cases_.Parts(name), expected.sizes(), expected.scalar_type());
    EXPECT_EQ(got.scalar_type(), expected.scalar_type());
    EXPECT_TRUE(at::equal(got, expected)) << name;
  }
}

TEST_P(FormatsTest, PartsAndPlannedBytesAreWhatEncodeMakes) {
  for (const std::string& name : cases_.CasesOf(prefix_)) {
    const at::Tensor weight = cases_.Get(name + "weight");
    const auto format = Format();
    const std::vector<PartSpec> specs = format->Parts(weight.sizes());
    const std::vector<at::Tensor> parts = format->Encode(weight);
    EXPECT_EQ(parts.size(), specs.size());
    if (parts.size() != specs.size()) continue;
    int64_t bytes = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      EXPECT_EQ(parts[i].scalar_type(), specs[i].dtype) << name;
      EXPECT_EQ(parts[i].sizes(), at::IntArrayRef(specs[i].shape)) << name;
      EXPECT_TRUE(parts[i].is_contiguous()) << name;
      bytes += static_cast<int64_t>(parts[i].nbytes());
    }
    for (const DType compute : {DType::kF32, DType::kBF16}) {
      EXPECT_EQ(bytes, QuantizedBytes(GetParam().scheme, weight.size(0), weight.size(1), compute))
          << name;
    }
  }
}

TEST_P(FormatsTest, LayersEqualTheLibrary) {
  for (const std::string& name : cases_.CasesOf(prefix_)) {
    const std::vector<at::Tensor> parts = cases_.Parts(name);
    const at::Tensor x = cases_.Get(name + "x");
    const at::Tensor bias = cases_.Get(name + "bias");
    const std::vector<int64_t> sizes = cases_.Get(name + "weight").sizes().vec();
    const double tolerance = SumTolerance(x.scalar_type());
    EXPECT_LE(RelativeError(Format()->Linear(x, parts, sizes, bias), cases_.Get(name + "y")),
              tolerance)
        << name;
    EXPECT_LE(RelativeError(Format()->Linear(x, parts, sizes, {}), cases_.Get(name + "y_plain")),
              tolerance)
        << name;
    if (cases_.Has(name + "y_module")) {
      // On a CPU with bfloat16 instructions Linear4bit computes in bfloat16 whatever x is.
      const at::Tensor expected = cases_.Get(name + "y_module");
      EXPECT_LE(RelativeError(Format()->Linear(x, parts, sizes, bias), expected), 1.0 / 64) << name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Schemes, FormatsTest, ::testing::ValuesIn(kSchemes),
                         [](const auto& scheme) {
                           return std::string(QuantSchemeName(scheme.param.scheme));
                         });

TEST(BnbInt8Test, OutliersMatterAndTheThresholdIsObeyed) {
  const c10::InferenceMode inference_mode;
  const QuantCases cases("bnb8.safetensors");
  for (const std::string& name : cases.CasesOf("int8/")) {
    const std::vector<at::Tensor> parts = cases.Parts(name);
    const at::Tensor x = cases.Get(name + "x");
    const at::Tensor bias = cases.Get(name + "bias");
    const std::vector<int64_t> shape = cases.Get(name + "weight").sizes().vec();
    const double tolerance = SumTolerance(x.scalar_type());
    const auto linear = [&](double threshold, const at::Tensor& tokens) {
      return MakeBnbInt8(threshold)->Linear(tokens, parts, shape, bias);
    };
    const at::Tensor plain = cases.Get(name + "y_threshold0");
    EXPECT_LE(RelativeError(linear(0, x), plain), tolerance) << name;
    EXPECT_LE(RelativeError(linear(6, x.narrow(0, 0, 1).narrow(1, 0, 1)),
                            cases.Get(name + "y_one_token")),
              tolerance)
        << name;
    if (x.size(2) > 4 && x.scalar_type() == at::kFloat) {
      EXPECT_GT(RelativeError(linear(6, x), plain), 100 * tolerance) << name;
    }
  }
}

TEST(BnbInt8Test, TokensInManyChunksAreOneLayer) {
  const c10::InferenceMode inference_mode;
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(TestSeed());
  const int64_t tokens = 2 * kInt8RowsPerChunk + 77;
  at::Tensor x = at::randn({tokens, 48}, generator);
  // An outlier in the last chunk only: its column leaves the integer product of all of them.
  x[tokens - 1][5] = 40;
  const auto format = MakeBnbInt8(6.0);
  const auto parts = format->Encode(at::randn({24, 48}, generator));
  const at::Tensor whole = format->Linear(x, parts, {24, 48}, {});
  const at::Tensor exact = at::linear(x, format->Decode(parts, {24, 48}, at::kFloat));
  // int8 activations: about 1/254 of a row's maximum for each of 48 terms.
  EXPECT_LE(RelativeError(whole, exact), 2e-2);
  at::Tensor few = at::zeros({2, 48});
  few[0].copy_(x[3]);
  few[1].copy_(x[tokens - 1]);
  const at::Tensor picked = format->Linear(few, parts, {24, 48}, {});
  EXPECT_LE(RelativeError(picked[0], whole[3]), 1e-5);
  EXPECT_LE(RelativeError(picked[1], whole[tokens - 1]), 1e-5);
}

TEST(Bnb4BitTest, LoopsEqualTheComposedForm) {
  const c10::InferenceMode inference_mode;
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(TestSeed());
  for (const int64_t block : {32, 64, 128, 4096}) {
    for (const auto type : {Bnb4BitType::kNf4, Bnb4BitType::kFp4}) {
      for (const bool nested : {false, true}) {
        const Bnb4BitLayout layout = {.type = type, .nested = nested, .block = block};
        const auto format = MakeBnb4Bit(layout);
        for (const auto& shape : {std::vector<int64_t>{7, 9}, {67, 130}, {300, 513}}) {
          for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
            const at::Tensor weight = at::randn(shape, generator).to(dtype);
            const auto parts = format->Encode(weight);
            const auto composed = EncodeBnb4BitComposed(weight, layout);
            EXPECT_EQ(parts.size(), composed.size());
            if (parts.size() != composed.size()) continue;
            for (size_t i = 0; i < parts.size(); ++i)
              EXPECT_TRUE(at::equal(parts[i], composed[i])) << format->name() << " part " << i;
            EXPECT_TRUE(at::equal(format->Decode(parts, shape, dtype),
                                  DecodeBnb4BitComposed(parts, shape, dtype, layout)))
                << format->name() << " block " << block << " " << dtype;
          }
        }
      }
    }
  }
}

TEST(RowScaledTest, LoopsEqualTheComposedForm) {
  const c10::InferenceMode inference_mode;
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(TestSeed());
  const at::Tensor scales = at::randn({37}, generator);
  const at::Tensor bytes =
      at::randint(-128, 128, {37, 51}, generator, at::TensorOptions(at::kChar));
  for (const at::Tensor& values : {bytes, bytes.to(at::kFloat).to(at::kFloat8_e4m3fn)}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      for (const float factor : {1.0f, 7.874015718698502e-3f}) {
        EXPECT_TRUE(at::equal(DecodeRows(values, scales, factor, dtype),
                              DecodeRowsComposed(values, scales, factor, dtype)));
      }
    }
  }
}

TEST(Int8MatMulTest, IsExactAtTheLargestValues) {
  const c10::InferenceMode inference_mode;
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(TestSeed());
  // Sums are of 1024 columns at a time where they go through float32: the last are one and four
  // such pieces, and two and a bit.
  // Three squares of rows and of outputs, the last ones smaller, are the largest.
  for (const int64_t columns : {1, 2, 5, 64, 1024, 1025, 4096, 2600}) {
    for (const int64_t rows : {1, 2, 9, 33, 300}) {
      for (const int64_t outputs : {1, 2, 6, 64, 270}) {
        const at::TensorOptions int8(at::kChar);
        at::Tensor a = at::randint(-128, 128, {rows, columns}, generator, int8);
        at::Tensor b = at::randint(-128, 128, {outputs, columns}, generator, int8);
        a[0].fill_(-128);
        b[0].fill_(-128);
        b[outputs - 1].fill_(127);
        const at::Tensor expected = a.to(at::kDouble).matmul(b.to(at::kDouble).t()).to(at::kInt);
        const auto what = [&] { return absl::StrCat(rows, " ", columns, " ", outputs); };
        EXPECT_TRUE(at::equal(Int8MatMul(a, b), expected)) << what();
        EXPECT_TRUE(at::equal(Int8MatMulComposed(a, b), expected)) << what();
      }
    }
  }
}

TEST(TorchAoTest, ARowOrTokenOfZerosStaysZeros) {
  const c10::InferenceMode inference_mode;
  const at::Tensor weight = at::zeros({16, 32});
  const at::Tensor x = at::zeros({2, 3, 32});
  for (const QuantScheme scheme : {QuantScheme::kInt8, QuantScheme::kInt8Wo, QuantScheme::kInt8Dyn,
                                   QuantScheme::kFp8Wo, QuantScheme::kFp8Dyn}) {
    const auto format = MakeWeightFormat(scheme, 6.0, at::kFloat);
    const auto parts = format->Encode(weight);
    EXPECT_TRUE(at::equal(format->Decode(parts, {16, 32}, at::kFloat), weight));
    EXPECT_TRUE(at::equal(format->Linear(x, parts, {16, 32}, {}), at::zeros({2, 3, 16})))
        << format->name();
  }
}

TEST(MakeWeightFormatTest, EverySchemeIsTheFormatOfItsNameAndItsPlannedBytes) {
  for (int i = 1; i <= static_cast<int>(QuantScheme::kQ5_1); ++i) {
    const auto scheme = static_cast<QuantScheme>(i);
    const auto format = MakeWeightFormat(scheme, 6.0, at::kBFloat16);
    EXPECT_EQ(absl::AsciiStrToLower(format->name()), QuantSchemeName(scheme));
    for (const auto& shape : {std::vector<int64_t>{4096, 10240}, {64, 96}, {33, 32}}) {
      EXPECT_TRUE(scheme == QuantScheme::kFp8Dyn || CanQuantize(scheme, shape[0], shape[1]));
      if (!(scheme == QuantScheme::kFp8Dyn || CanQuantize(scheme, shape[0], shape[1]))) continue;
      int64_t bytes = 0;
      for (const PartSpec& part : format->Parts(shape)) {
        bytes +=
            c10::multiply_integers(part.shape) * static_cast<int64_t>(c10::elementSize(part.dtype));
      }
      EXPECT_EQ(bytes, QuantizedBytes(scheme, shape[0], shape[1], DType::kBF16)) << format->name();
    }
  }
  EXPECT_FALSE(CanQuantize(QuantScheme::kFp8Dyn, 33, 32));
  EXPECT_FALSE(CanQuantize(QuantScheme::kFp8Dyn, 32, 24));
}

TEST(MakeWeightFormatTest, RefusesWhatIsNoFormat) {
  const auto refused = [](QuantScheme scheme, double threshold, c10::ScalarType compute) {
    const absl::Status status = RunGuarded([&] {
      MakeWeightFormat(scheme, threshold, compute);
      return absl::OkStatus();
    });
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(refused(QuantScheme::kNone, 6, at::kFloat), HasSubstr("no format"));
  EXPECT_THAT(refused(QuantScheme::kInt8, -1, at::kFloat), HasSubstr("-1"));
  EXPECT_THAT(refused(QuantScheme::kNf4, 6, at::kDouble), HasSubstr("Double"));
}

}  // namespace
}  // namespace kino::engine
