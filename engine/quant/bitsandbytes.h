// bitsandbytes' weight formats: 4-bit NormalFloat and float in blocks (QLoRA, arXiv 2305.14314),
// and LLM.int8() (arXiv 2208.07339). Numerics of bitsandbytes 0.50's CPU path: codes, scales and
// decoded weights are its own, bit for bit.
//
// What is computed in: bitsandbytes casts a 4-bit layer's input to bnb_4bit_compute_dtype (float32
// unless set). Here it is always x's dtype, as with a compute dtype equal to the model's.
// int8 layers quantize float16 activations whatever x is, as bitsandbytes does.
#pragma once

#include <array>
#include <memory>

#include "engine/quant/weight_format.h"

namespace kino::engine {

enum class Bnb4BitType { kNf4, kFp4 };

struct Bnb4BitLayout {
  Bnb4BitType type = Bnb4BitType::kNf4;
  // Double quantization: the blocks' scales are 8-bit codes themselves, in blocks of 256.
  bool nested = false;
  // Elements to a scale: a power of two from 32 to 4096.
  int64_t block = 64;
};
inline constexpr int64_t kBnbNestedBlock = 256;

// The values of the 16 codes, the largest 1.
const std::array<float, 16>& Bnb4BitCode(Bnb4BitType type);
// The 256 values of the dynamic 8-bit code that nested scales use, ascending. float32 [256], CPU.
const at::Tensor& BnbDynamicCode();

// Parts: packed uint8 [ceil(n / 2)] (the first of two in the high half), then
//   plain:  scales float32 [blocks]
//   nested: scales uint8 [blocks], their scales float32 [ceil(blocks / 256)],
//           their code float32 [256], their offset float32 [1].
std::shared_ptr<const WeightFormat> MakeBnb4Bit(const Bnb4BitLayout& layout);

// Parts: int8 [out, in], row maxima float32 [out]. Input columns that hold a magnitude of
// `threshold` or more are multiplied in x's dtype, the rest in int8; 0: all in int8. With a
// threshold every call waits for the device to tell which columns.
std::shared_ptr<const WeightFormat> MakeBnbInt8(double threshold);

// The specification, on torch's operators and on any device.
std::vector<at::Tensor> EncodeBnb4BitComposed(const at::Tensor& weight,
                                              const Bnb4BitLayout& layout);
at::Tensor DecodeBnb4BitComposed(const std::vector<at::Tensor>& parts, at::IntArrayRef shape,
                                 c10::ScalarType dtype, const Bnb4BitLayout& layout);

}  // namespace kino::engine
