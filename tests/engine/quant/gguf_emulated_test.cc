// The CUDA kernel that decodes GGUF's blocks, on the CPU (tests/support/cuda_emulator.h), against
// the CPU's decoder, bit for bit, under ASan.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/randint.h>
#include <gtest/gtest.h>

#include "engine/quant/gguf.h"
#include "tests/engine/quant/gguf_types.h"
#include "tests/support/cuda_emulator.h"
#define cuda emulated
#include "engine/quant/cuda/gguf_kernels.cu"
#undef cuda

namespace kino::engine {
namespace {

class EmulatedGguf : public ::testing::TestWithParam<GgmlType> {};

TEST_P(EmulatedGguf, DecodesAsTheCpu) {
  const std::shared_ptr<const WeightFormat> format = MakeGgufFormat(GetParam());
  const std::vector<int64_t> shape = {3, 1280};
  // Any bytes; a scale that is no number must not be one on either.
  const at::Tensor blocks =
      at::randint(256, format->Parts(shape)[0].shape, at::make_generator<at::CPUGeneratorImpl>(5),
                  at::TensorOptions(at::kByte));
  for (const auto& [dtype, output] : {std::pair{at::kFloat, emulated::Element::kFloat},
                                      std::pair{at::kHalf, emulated::Element::kHalf},
                                      std::pair{at::kBFloat16, emulated::Element::kBFloat16}}) {
    const at::Tensor expected = format->Decode({blocks}, shape, dtype);
    // Threads for all elements, and some that stride over them, the last pass shorter.
    for (const int64_t max_grid : {1000, 4}) {
      const at::Tensor got = at::empty_like(expected);
      ASSERT_EQ(emulated::DecodeGguf(GetParam(), blocks.const_data_ptr<uint8_t>(),
                                     expected.numel() / GgmlBlockElements(GetParam()), output,
                                     got.mutable_data_ptr(), nullptr, max_grid),
                cudaSuccess);
      const at::Tensor same =
          (got == expected).logical_or((got != got).logical_and(expected != expected));
      EXPECT_TRUE(same.all().item<bool>()) << c10::toString(dtype) << ", " << max_grid;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, EmulatedGguf, ::testing::ValuesIn(kGgufTypes), GgufTypeOf);

}  // namespace
}  // namespace kino::engine
