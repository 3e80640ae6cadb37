// GGUF's block types against the gguf library (bit for bit) and diffusers' GGUFLinear, on random
// blocks of each type (gguf_fixtures.py makes them).
#include "engine/quant/gguf.h"
#include "engine/ops/linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/core/safetensors.h"
#include "engine/core/status_bridge.h"
#include "engine/core/torch_types.h"
#include "tests/engine/quant/gguf_types.h"
#include "tests/support/fixture_folder.h"

namespace kino::engine {
namespace {

using ::testing::HasSubstr;

constexpr GgmlType kEncoded[] = {GgmlType::kQ8_0, GgmlType::kQ4_0, GgmlType::kQ4_1, GgmlType::kQ5_0,
                                 GgmlType::kQ5_1};

// Written once per process.
at::Tensor Fixture(const std::string& name) {
  static const std::unique_ptr<SafetensorsFile> file = [] {
    FixtureFolder folder;
    folder.RunOracle("quant/gguf_fixtures.py", std::to_string(TestSeed()));
    auto opened = SafetensorsFile::Open(folder.path() + "/gguf.safetensors");
    TORCH_CHECK(opened.ok(), opened.status().ToString());
    return *std::move(opened);
  }();
  const auto found = file->tensors().find(name);
  TORCH_CHECK(found != file->tensors().end(), "the fixtures have no ", name);
  const TensorEntry& entry = found->second;
  return at::from_blob(const_cast<std::byte*>(entry.data), entry.shape, ToTorch(entry.dtype))
      .clone();
}

// Bits, so that zeros of either sign are told apart.
bool BitEqual(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() &&
         at::equal(a.contiguous().view(at::kByte), b.contiguous().view(at::kByte));
}

absl::StatusCode CodeOf(const std::function<void()>& body, std::string* message) {
  try {
    body();
  } catch (const StatusError& error) {
    *message = std::string(error.status().message());
    return error.status().code();
  }
  return absl::StatusCode::kOk;
}

class GgufFormatTest : public ::testing::TestWithParam<GgmlType> {
 protected:
  std::string Name() const { return GgmlTypeName(GetParam()); }
  at::Tensor Case(const std::string& what) const { return Fixture(Name() + "." + what); }
  std::shared_ptr<const WeightFormat> format() const { return MakeGgufFormat(GetParam()); }
};

TEST_P(GgufFormatTest, BlockIsOfGgufsSize) {
  EXPECT_EQ(Case("size")[0].item<int64_t>(), GgmlBlockElements(GetParam()));
  EXPECT_EQ(Case("size")[1].item<int64_t>(), GgmlBlockBytes(GetParam()));
  EXPECT_EQ(GgmlTypeFromName(Name()), GetParam());
  const std::vector<PartSpec> parts = format()->Parts(Case("values").sizes());
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].dtype, at::kByte);
  EXPECT_EQ(at::IntArrayRef(parts[0].shape), Case("blocks").sizes());
}

TEST_P(GgufFormatTest, DecodesBitEqualToGguf) {
  const at::Tensor values = Case("values");
  EXPECT_TRUE(BitEqual(format()->Decode({Case("blocks")}, values.sizes(), at::kFloat), values));
}

TEST_P(GgufFormatTest, DecodesAtOddAddresses) {
  const at::Tensor blocks = Case("blocks"), values = Case("values");
  const at::Tensor room = at::empty({blocks.numel() + 1}, at::TensorOptions(at::kByte));
  const at::Tensor shifted = room.slice(0, 1).view(blocks.sizes());
  shifted.copy_(blocks);
  EXPECT_TRUE(BitEqual(format()->Decode({shifted}, values.sizes(), at::kFloat), values));
}

TEST_P(GgufFormatTest, OtherTypesAreTheFloatsRoundedOnce) {
  const at::Tensor blocks = Case("blocks"), values = Case("values");
  for (const c10::ScalarType dtype : {at::kHalf, at::kBFloat16, at::kDouble}) {
    EXPECT_TRUE(BitEqual(format()->Decode({blocks}, values.sizes(), dtype), values.to(dtype)))
        << c10::toString(dtype);
  }
}

// As a fused convolution's kernel would lie in a file.
TEST_P(GgufFormatTest, ShapesOfMoreDimensionsAreRowsOfTheLast) {
  const at::Tensor blocks = Case("blocks").slice(0, 0, 36), values = Case("values").slice(0, 0, 36);
  const at::Tensor decoded = format()->Decode({blocks}, {3, 12, values.size(1)}, at::kFloat);
  EXPECT_TRUE(BitEqual(decoded, values.view({3, 12, values.size(1)})));
}

// diffusers rounds to float16 at each step of decoding: the scale of a run, its product, the sum.
// Three roundings of 2^-11 each, relative to the largest of the terms; minima up to 63 * |minimum|
// cancel against products, so relative to the largest weight, not to each.
TEST_P(GgufFormatTest, LayerIsWithinHalfPrecisionOfDiffusers) {
  const at::Tensor x = Fixture("x"), y = Case("y"), values = Case("values");
  // The first four blocks' scales overflow float16 times their quants.
  const at::Tensor rows = format()->Linear(x, {Case("blocks")}, values.sizes(), {}).slice(1, 1);
  const double bound = x.abs().sum(1).max().item<double>() *
                       values.slice(0, 1).abs().max().item<double>() * 3 / 2048;
  EXPECT_LE((rows - y.slice(1, 1)).abs().max().item<double>(), bound);
  EXPECT_TRUE(at::equal(rows, Linear(x, values, {}).slice(1, 1)));
}

TEST_P(GgufFormatTest, RefusesRowsThatBlocksDoNotDivide) {
  std::string message;
  EXPECT_EQ(CodeOf(
                [&] {
                  format()->Parts({4, 264 + 8});
                },
                &message),
            absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(message, HasSubstr(Name() + " cannot hold a weight of shape [4, 272]"));
  EXPECT_THAT(message, HasSubstr("multiple of " + std::to_string(GgmlBlockElements(GetParam()))));
}

INSTANTIATE_TEST_SUITE_P(Types, GgufFormatTest, ::testing::ValuesIn(kGgufTypes), GgufTypeOf);

class GgufEncodingTest : public GgufFormatTest {};

TEST_P(GgufEncodingTest, EncodesBitEqualToGguf) {
  const at::Tensor plain = Fixture("plain");
  const std::vector<at::Tensor> parts = format()->Encode(plain);
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_TRUE(BitEqual(parts[0], Case("encoded")));
}

TEST_P(GgufEncodingTest, HalfWeightsAreEncodedAsTheirFloats) {
  const at::Tensor plain = Fixture("plain").to(at::kBFloat16);
  EXPECT_TRUE(BitEqual(format()->Encode(plain)[0], format()->Encode(plain.to(at::kFloat))[0]));
}

// As the library makes of the largest below a half: what 0.5 added in float32 would round up.
TEST(GgufTest, RoundingIsExact) {
  const at::Tensor weight = at::zeros({1, 32});
  weight[0][0] = 127;
  weight[0][1] = 0.49999997f;
  weight[0][2] = -0.5f;
  const at::Tensor blocks = MakeGgufFormat(GgmlType::kQ8_0)->Encode(weight)[0];
  EXPECT_EQ(blocks[0][2].item<int>(), 127);
  EXPECT_EQ(blocks[0][3].item<int>(), 0);
  EXPECT_EQ(blocks[0][4].item<int>(), 255);  // -1
}

// A quant's step is the spread of its block over 2^bits; half of it is the error of each weight.
TEST_P(GgufEncodingTest, LayerOutputIsWithinAQuantsStep) {
  const at::Tensor x = Fixture("x"), plain = Fixture("plain").slice(0, 1);
  const int bits = GetParam() == GgmlType::kQ8_0                                    ? 8
                   : GetParam() == GgmlType::kQ5_0 || GetParam() == GgmlType::kQ5_1 ? 5
                                                                                    : 4;
  const at::Tensor y = format()->Linear(x, format()->Encode(plain), plain.sizes(), {});
  const double error = (y - Linear(x, plain, {})).abs().max().item<double>();
  // Errors of 2048 weights, each uniform in half a step of a spread of about 8 sigmas (0.05), and
  // weighted by normal numbers: sigma = step / sqrt(12) * sqrt(2048); six of them.
  const double step = 8 * 0.05 / (1 << bits);
  EXPECT_LE(error, 6 * step / std::sqrt(12.0) * std::sqrt(2048.0));
  EXPECT_GT(error, 0);
}

INSTANTIATE_TEST_SUITE_P(Types, GgufEncodingTest, ::testing::ValuesIn(kEncoded), GgufTypeOf);

TEST(GgufTest, TypesThatGgufOnlyReadsAreNotEncoded) {
  for (const GgmlType type : kGgufTypes) {
    if (std::find(std::begin(kEncoded), std::end(kEncoded), type) != std::end(kEncoded)) continue;
    std::string message;
    EXPECT_EQ(CodeOf(
                  [&] {
                    MakeGgufFormat(type)->Encode(at::zeros({1, 256}));
                  },
                  &message),
              absl::StatusCode::kUnimplemented);
    EXPECT_THAT(message, HasSubstr(GgmlTypeName(type)));
  }
}

}  // namespace
}  // namespace kino::engine
