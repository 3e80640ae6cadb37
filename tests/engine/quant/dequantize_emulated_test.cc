// The CUDA kernels that dequantize, on the CPU (tests/support/cuda_emulator.h), against what their
// header says, bit for bit, under ASan.
#include <gtest/gtest.h>

#include "tests/support/cuda_emulator.h"
#define cuda emulated
#include "engine/quant/cuda/dequantize.cu"
#undef cuda

namespace kino::engine {
namespace {

using emulated::Element;
using ::kino::testing::CudaBlock;
using ::kino::testing::kSchedules;

template <typename T>
float AsFloat(T value) {
  return static_cast<float>(value);
}

// Decodes into T and holds each element against `expected`, rounded once to T.
template <typename T, typename Decode>
void Expect(Element type, const std::vector<float>& expected, const Decode& decode) {
  std::vector<T> out(expected.size());
  ASSERT_EQ(decode(type, out.data()), cudaSuccess);
  for (size_t i = 0; i < expected.size(); ++i)
    ASSERT_EQ(AsFloat(out[i]), AsFloat(T(expected[i]))) << "element " << i;
}
template <typename Decode>
void ExpectInAllTypes(const std::vector<float>& expected, const Decode& decode) {
  for (const auto schedule : kSchedules) {
    CudaBlock::schedule = schedule;
    Expect<float>(Element::kFloat, expected, decode);
    Expect<__half>(Element::kHalf, expected, decode);
    Expect<__nv_bfloat16>(Element::kBFloat16, expected, decode);
  }
}

TEST(EmulatedDequantize, FourBitsWithPlainAndNestedScales) {
  std::mt19937 random(3);
  float code[16];
  for (float& value : code) value = static_cast<float>(random() % 1000) / 500.0f - 1.0f;
  // An odd number of elements; several blocks of threads, the last ragged.
  constexpr int64_t kElements = 1301, kBlock = 64, kBlocks = (kElements + kBlock - 1) / kBlock;
  std::vector<uint8_t> packed((kElements + 1) / 2), codes(kBlocks);
  for (uint8_t& byte : packed) byte = static_cast<uint8_t>(random());
  for (uint8_t& each : codes) each = static_cast<uint8_t>(random());
  std::vector<float> plain(kBlocks), nested((kBlocks + 7) / 8), nested_code(256);
  for (auto* list : {&plain, &nested, &nested_code})
    for (float& value : *list) value = static_cast<float>(random() % 997) / 300.0f;
  const float offset = 0.37f;
  const auto nibble = [&](int64_t i) {
    const uint8_t pair = packed[static_cast<size_t>(i / 2)];
    return code[i % 2 == 0 ? pair >> 4 : pair & 15];
  };
  std::vector<float> with_plain, with_nested;
  for (int64_t i = 0; i < kElements; ++i) {
    const size_t block = static_cast<size_t>(i / kBlock);
    with_plain.push_back(nibble(i) * plain[block]);
    const float product = nested_code[codes[block]] * nested[block / 8];
    with_nested.push_back(nibble(i) * (product + offset));
  }
  ExpectInAllTypes(with_plain, [&](Element type, void* out) {
    return emulated::Decode4Bit(type, packed.data(), {.plain = plain.data()}, code, kBlock,
                                kElements, out, nullptr);
  });
  ExpectInAllTypes(with_nested, [&](Element type, void* out) {
    return emulated::Decode4Bit(type, packed.data(),
                                {.codes = codes.data(),
                                 .nested = nested.data(),
                                 .code = nested_code.data(),
                                 .offset = &offset,
                                 .nested_block = 8},
                                code, kBlock, kElements, out, nullptr);
  });
}

TEST(EmulatedDequantize, RowsWithAScaleEach) {
  std::mt19937 random(4);
  constexpr int64_t kRows = 5, kColumns = 131;
  std::vector<float> scales(kRows);
  for (float& scale : scales) scale = static_cast<float>(random() % 997) / 300.0f;
  const float factor = 1.0f / 127;
  std::vector<int8_t> integers(kRows * kColumns);
  for (int8_t& value : integers) value = static_cast<int8_t>(random() % 255 - 127);
  std::vector<__nv_fp8_e4m3> floats;
  std::vector<float> of_integers, of_floats;
  for (int64_t i = 0; i < kRows * kColumns; ++i) {
    const float scale = scales[static_cast<size_t>(i / kColumns)];
    of_integers.push_back(static_cast<float>(integers[static_cast<size_t>(i)]) * scale * factor);
    floats.emplace_back(static_cast<float>(random() % 400) - 200.0f);
    of_floats.push_back(static_cast<float>(floats.back()) * scale * factor);
  }
  ExpectInAllTypes(of_integers, [&](Element type, void* out) {
    return emulated::DecodeScaledRows(type, false, integers.data(), scales.data(), factor, kRows,
                                      kColumns, out, nullptr);
  });
  ExpectInAllTypes(of_floats, [&](Element type, void* out) {
    return emulated::DecodeScaledRows(type, true, floats.data(), scales.data(), factor, kRows,
                                      kColumns, out, nullptr);
  });
}

}  // namespace
}  // namespace kino::engine
