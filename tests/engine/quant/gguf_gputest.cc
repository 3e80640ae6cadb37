// Decoding GGUF's blocks on CUDA against the CPU, bit for bit: both compute what gguf_blocks.h says
// without fusing. Skipped where there is no CUDA device.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros_like.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/quant/cuda/gguf_kernels.h"
#include "engine/quant/gguf.h"
#include "tests/engine/quant/gguf_types.h"
#include "tests/support/cuda_test.h"

namespace kino::engine {
namespace {

class CudaGgufTest : public ::kino::testing::CudaTest<::testing::TestWithParam<GgmlType>> {};

TEST_P(CudaGgufTest, DecodesAsTheCpu) {
  const std::shared_ptr<const WeightFormat> format = MakeGgufFormat(GetParam());
  const std::vector<int64_t> shape = {129, 1024};
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(5);
  // Any bytes; a scale that is no number must not be one on either.
  const at::Tensor blocks =
      at::randint(256, format->Parts(shape)[0].shape, generator, at::TensorOptions(at::kByte));
  for (const c10::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
    const at::Tensor there = format->Decode({blocks.to(device_)}, shape, dtype).to(at::kCPU);
    const at::Tensor here = format->Decode({blocks}, shape, dtype);
    const at::Tensor same = (there == here).logical_or((there != there).logical_and(here != here));
    EXPECT_TRUE(same.all().item<bool>()) << c10::toString(dtype);
  }
}

// As weights above kGgufMaxGrid thread blocks are: threads that stride over 100 passes, the last
// of them shorter.
TEST_P(CudaGgufTest, ThreadsStrideOverALargeWeight) {
  const std::shared_ptr<const WeightFormat> format = MakeGgufFormat(GetParam());
  const std::vector<int64_t> shape = {129, 1024};
  const at::Tensor blocks =
      at::randint(256, format->Parts(shape)[0].shape, at::make_generator<at::CPUGeneratorImpl>(6),
                  at::TensorOptions(at::kByte))
          .to(device_);
  const at::Tensor expected = format->Decode({blocks}, shape, at::kFloat);
  const at::Tensor strided = at::zeros_like(expected);
  const c10::cuda::CUDAGuard guard(device_);
  ASSERT_EQ(cuda::DecodeGguf(GetParam(), blocks.const_data_ptr<uint8_t>(),
                             expected.numel() / GgmlBlockElements(GetParam()),
                             cuda::Element::kFloat, strided.mutable_data_ptr(),
                             c10::cuda::getCurrentCUDAStream(device_.index()).stream(),
                             /*max_grid=*/5),
            cudaSuccess);
  EXPECT_TRUE(at::equal(strided.view(at::kByte), expected.view(at::kByte)));
}

INSTANTIATE_TEST_SUITE_P(Types, CudaGgufTest, ::testing::ValuesIn(kGgufTypes), GgufTypeOf);

}  // namespace
}  // namespace kino::engine
