// Weights and inputs so large that every loop over pieces of one takes three pieces or more, the
// last of them smaller: the same as in one piece. Sizes follow from kElementsPerTask (gguf.cc),
// kGrain (bitsandbytes_4bit.cc, row_scaled.cc), kChunk (row_scaled.cc) and kInt8RowsPerChunk.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "engine/quant/bitsandbytes.h"
#include "engine/quant/formats.h"
#include "engine/quant/gguf.h"
#include "engine/quant/int8_matmul.h"
#include "engine/quant/row_scaled.h"
#include "tests/engine/quant/gguf_types.h"
#include "tests/engine/quant/quant_cases.h"
#include "tests/support/at_threads.h"

namespace kino::engine {
namespace {

using ::kino::testing::AtThreads;

// 3 * 2^20 elements and some rows.
constexpr int64_t kRows = 3 * 1024 + 77, kColumns = 1024;
// Of a weight that is encoded by itself: one piece of every loop on one thread.
constexpr int64_t kSomeRows = 500;
constexpr int kThreads = 3;

bool BitEqual(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         at::equal(a.view(at::kByte), b.view(at::kByte));
}

at::Tensor Weight(at::IntArrayRef shape) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(3), at::TensorOptions());
}

class LargeWeightTest : public ::testing::TestWithParam<QuantScheme> {
 protected:
  // Nested scales have one mean: such a weight cannot be encoded by parts.
  static std::optional<Bnb4BitLayout> Nested() {
    if (GetParam() == QuantScheme::kNf4Dq)
      return Bnb4BitLayout{.type = Bnb4BitType::kNf4, .nested = true};
    if (GetParam() == QuantScheme::kFp4Dq)
      return Bnb4BitLayout{.type = Bnb4BitType::kFp4, .nested = true};
    return std::nullopt;
  }
  // Without outliers: their columns are those of all tokens together.
  const std::shared_ptr<const WeightFormat> format_ =
      MakeWeightFormat(GetParam(), /*int8_threshold=*/0, at::kFloat);
  c10::InferenceMode inference_mode_;
};

TEST_P(LargeWeightTest, IsEncodedAndDecodedAsItsRowsAre) {
  const at::Tensor weight = Weight({kRows, kColumns});
  std::vector<at::Tensor> expected;
  at::Tensor decoded;
  {
    const AtThreads one(1);
    if (const std::optional<Bnb4BitLayout> layout = Nested()) {
      expected = EncodeBnb4BitComposed(weight, *layout);
      decoded = DecodeBnb4BitComposed(expected, weight.sizes(), at::kBFloat16, *layout);
    } else {
      std::vector<std::vector<at::Tensor>> by_part;
      std::vector<at::Tensor> rows;
      for (int64_t first = 0; first < kRows; first += kSomeRows) {
        const at::Tensor some = weight.narrow(0, first, std::min(kSomeRows, kRows - first));
        const std::vector<at::Tensor> parts = format_->Encode(some);
        by_part.resize(parts.size());
        for (size_t i = 0; i < parts.size(); ++i) by_part[i].push_back(parts[i]);
        rows.push_back(format_->Decode(parts, some.sizes(), at::kBFloat16));
      }
      for (const std::vector<at::Tensor>& pieces : by_part) {
        std::vector<at::Tensor> bytes;
        for (const at::Tensor& piece : pieces) bytes.push_back(piece.view(at::kByte));
        expected.push_back(at::cat(bytes).view(pieces[0].scalar_type()));
      }
      decoded = at::cat(rows);
    }
  }
  const AtThreads several(kThreads);
  const std::vector<at::Tensor> parts = format_->Encode(weight);
  ASSERT_EQ(parts.size(), expected.size());
  for (size_t i = 0; i < parts.size(); ++i)
    EXPECT_TRUE(BitEqual(parts[i], expected[i])) << "part " << i;
  EXPECT_TRUE(BitEqual(format_->Decode(expected, weight.sizes(), at::kBFloat16), decoded));
}

INSTANTIATE_TEST_SUITE_P(
    Schemes, LargeWeightTest,
    ::testing::Values(QuantScheme::kNf4, QuantScheme::kNf4Dq, QuantScheme::kFp4,
                      QuantScheme::kFp4Dq, QuantScheme::kInt8, QuantScheme::kInt8Wo,
                      QuantScheme::kInt8Dyn, QuantScheme::kFp8Wo, QuantScheme::kFp8Dyn,
                      QuantScheme::kQ8_0, QuantScheme::kQ4_0, QuantScheme::kQ4_1,
                      QuantScheme::kQ5_0, QuantScheme::kQ5_1),
    [](const auto& scheme) { return std::string(QuantSchemeName(scheme.param)); });

// A row longer than all that is quantized at a time is quantized by itself.
TEST(LongRowTest, RowsLongerThanAPieceAreTakenOneByOne) {
  const c10::InferenceMode inference_mode;
  const at::Tensor weight = Weight({3, (int64_t{1} << 20) + 5});
  const auto format = MakeWeightFormat(QuantScheme::kInt8Wo, 0, at::kFloat);
  const std::vector<at::Tensor> whole = format->Encode(weight);
  for (int64_t row = 0; row < weight.size(0); ++row) {
    const std::vector<at::Tensor> alone = format->Encode(weight.narrow(0, row, 1));
    EXPECT_TRUE(at::equal(whole[0].narrow(0, row, 1), alone[0])) << row;
    EXPECT_TRUE(at::equal(whole[1].narrow(0, row, 1), alone[1])) << row;
  }
}

// The types that GGUF only reads, too: blocks of random bytes.
class LargeGgufTest : public ::testing::TestWithParam<GgmlType> {};

TEST_P(LargeGgufTest, IsDecodedAsItsRowsAre) {
  const c10::InferenceMode inference_mode;
  const auto format = MakeGgufFormat(GetParam());
  const std::vector<int64_t> shape = {397, 256};  // 3 * 32768 elements and some
  const at::Tensor blocks =
      at::randint(256, format->Parts(shape)[0].shape, at::make_generator<at::CPUGeneratorImpl>(5),
                  at::TensorOptions(at::kByte));
  std::vector<at::Tensor> rows;
  for (int64_t row = 0; row < shape[0]; ++row)
    rows.push_back(format->Decode({blocks.narrow(0, row, 1)}, {1, shape[1]}, at::kFloat));
  const AtThreads several(kThreads);
  EXPECT_TRUE(BitEqual(format->Decode({blocks}, shape, at::kFloat), at::cat(rows)));
}

INSTANTIATE_TEST_SUITE_P(Types, LargeGgufTest, ::testing::ValuesIn(kGgufTypes), GgufTypeOf);

// Layers that take their tokens some at a time.
class ManyTokensTest : public LargeWeightTest {};

TEST_P(ManyTokensTest, AreOneLayer) {
  const std::vector<int64_t> shape = {96, 128};
  const std::vector<at::Tensor> parts = format_->Encode(Weight(shape));
  const at::Tensor bias = Weight({96});
  const int64_t tokens = 2 * kInt8RowsPerChunk + 77, some = kInt8RowsPerChunk - 300;
  const at::Tensor x = Weight({tokens, 128});
  std::vector<at::Tensor> expected;
  for (int64_t first = 0; first < tokens; first += some) {
    expected.push_back(
        format_->Linear(x.narrow(0, first, std::min(some, tokens - first)), parts, shape, bias));
  }
  const at::Tensor got = format_->Linear(x, parts, shape, bias);
  EXPECT_LE(RelativeError(got, at::cat(expected)), SumTolerance(at::kFloat));
  // As five videos have them.
  const at::Tensor folded =
      format_->Linear(x.view({5, tokens / 5, 128}), parts, shape, bias).view({tokens, 96});
  EXPECT_TRUE(at::equal(folded, got));
}

INSTANTIATE_TEST_SUITE_P(Schemes, ManyTokensTest,
                         ::testing::Values(QuantScheme::kInt8, QuantScheme::kInt8Dyn,
                                           QuantScheme::kFp8Dyn),
                         [](const auto& scheme) {
                           return std::string(QuantSchemeName(scheme.param));
                         });

// An outlier in each piece of the tokens, and in the middle of one: their columns leave the integer
// product of all tokens.
TEST(ManyOutliersTest, OutliersOfEveryPieceCountForAllTokens) {
  const c10::InferenceMode inference_mode;
  const std::vector<int64_t> shape = {24, 48};
  const int64_t tokens = 2 * kInt8RowsPerChunk + 77;
  at::Tensor x = Weight({tokens, 48}).clamp_(-3, 3);
  const std::vector<std::pair<int64_t, int64_t>> outliers = {
      {3, 5}, {kInt8RowsPerChunk + 500, 11}, {tokens - 1, 40}};  // token, column
  for (const auto& [token, column] : outliers) x[token][column] = 60;
  const auto format = MakeBnbInt8(6.0);
  const auto parts = format->Encode(Weight(shape));
  const at::Tensor whole = format->Linear(x, parts, shape, {});
  // Beside the outliers, a token of each piece gives what it gives alone with them.
  const std::vector<int64_t> looked_at = {700, 2 * kInt8RowsPerChunk - 1, tokens - 2};
  for (const int64_t token : looked_at) {
    std::vector<at::Tensor> few = {x.narrow(0, token, 1)};
    for (const auto& [other, column] : outliers) few.push_back(x.narrow(0, other, 1));
    const at::Tensor got = format->Linear(at::cat(few), parts, shape, {});
    EXPECT_LE(RelativeError(whole[token], got[0]), 1e-5) << token;
    // It would not be, were one of the columns left in.
    for (size_t left_out = 1; left_out < few.size(); ++left_out) {
      std::vector<at::Tensor> fewer = few;
      fewer.erase(fewer.begin() + static_cast<ptrdiff_t>(left_out));
      const at::Tensor other = format->Linear(at::cat(fewer), parts, shape, {});
      EXPECT_GT(RelativeError(whole[token], other[0]), 1e-4) << token << ", " << left_out;
    }
  }
}

}  // namespace
}  // namespace kino::engine
