#include "engine/quant/gguf.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/core/status_bridge.h"
#include "engine/quant/gguf_blocks.h"
#ifdef KINO_WITH_CUDA
#include "engine/core/cuda_tensors.h"
#include "engine/quant/cuda/gguf_kernels.h"
#endif

namespace kino::engine {
namespace {

// Blocks a thread takes at a time: enough work to pay for waking it.
constexpr int64_t kElementsPerTask = 32768;
// Elements decoded in one stretch of straight code; divides every run.
constexpr int kStretch = 16;

// Each specialization's own block, so that its shifts and masks are constants where the loop over
// the block is unrolled.
template <GgmlType kType, typename T>
void DecodeBlocks(const uint8_t* blocks, int64_t count, T* out) {
  using Block = GgufBlock<kType>;
  static_assert(Block::kRun % kStretch == 0);
  for (int64_t i = 0; i < count; ++i, blocks += Block::kBytes, out += Block::kElements) {
#pragma GCC unroll 16
    for (int from = 0; from < Block::kElements; from += kStretch) {
      const GgufScale scale = Block::Scale(blocks, from / Block::kRun);
      for (int j = from; j < from + kStretch; ++j) {
        out[j] = static_cast<T>(GgufElement(scale, Block::Quant(blocks, j)));
      }
    }
  }
}

uint8_t* PutHalf(uint8_t* to, float value) {
  const uint16_t bits = c10::detail::fp16_ieee_from_fp32_value(value);
  std::memcpy(to, &bits, sizeof bits);
  return to + sizeof bits;
}

float Inverse(float scale) { return scale == 0 ? 0.0f : 1.0f / scale; }

// Cut off, not rounded, to 0..most. What is no number becomes 0.
int Cut(float value, int most) {
  return value > 0 ? static_cast<int>(std::min(value, static_cast<float>(most))) : 0;
}

// Of 4 or 5 bits: low nibbles of 32 elements in 16 bytes, the fifth bits before them in 4.
void PutQuants(const int (&quants)[32], int bits, uint8_t* to) {
  if (bits == 5) {
    uint32_t fifth = 0;
    for (int i = 0; i < 32; ++i) fifth |= static_cast<uint32_t>(quants[i] >> 4) << i;
    std::memcpy(to, &fifth, sizeof fifth);
    to += sizeof fifth;
  }
  for (int i = 0; i < 16; ++i) {
    to[i] = static_cast<uint8_t>((quants[i] & 15) | (quants[i + 16] & 15) << 4);
  }
}

// Q4_0, Q5_0: the element of largest magnitude becomes the lowest quant.
void EncodeSymmetric(const float* x, int bits, uint8_t* to) {
  const int half = 1 << (bits - 1);
  float extreme = x[0];
  for (int i = 1; i < 32; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  const float scale = extreme / static_cast<float>(-half);
  const float inverse = Inverse(scale);
  int quants[32];
  for (int i = 0; i < 32; ++i) {
    quants[i] = Cut(x[i] * inverse + (static_cast<float>(half) + 0.5f), 2 * half - 1);
  }
  PutQuants(quants, bits, PutHalf(to, scale));
}

// Q4_1, Q5_1: from the smallest element to the largest.
void EncodeOffset(const float* x, int bits, uint8_t* to) {
  const int most = (1 << bits) - 1;
  const auto [low, high] = std::minmax_element(x, x + 32);
  const float minimum = *low;
  const float scale = (*high - minimum) / static_cast<float>(most);
  const float inverse = Inverse(scale);
  int quants[32];
  for (int i = 0; i < 32; ++i) quants[i] = Cut((x[i] - minimum) * inverse + 0.5f, most);
  PutQuants(quants, bits, PutHalf(PutHalf(to, scale), minimum));
}

// Q8_0: halves away from zero.
void EncodeBytes(const float* x, uint8_t* to) {
  float extreme = 0;
  for (int i = 0; i < 32; ++i) extreme = std::max(extreme, std::fabs(x[i]));
  const float scale = extreme / 127.0f;
  const float inverse = Inverse(scale);
  to = PutHalf(to, scale);
  for (int i = 0; i < 32; ++i) {
    const int quant = Cut(std::round(std::fabs(x[i] * inverse)), 127);
    to[i] = static_cast<uint8_t>(x[i] < 0 ? -quant : quant);
  }
}

// Nullptr where the reference only decodes.
using EncodeBlock = void (*)(const float* x, uint8_t* to);
EncodeBlock EncoderOf(GgmlType type) {
  switch (type) {
    case GgmlType::kQ8_0:
      return EncodeBytes;
    case GgmlType::kQ4_0:
      return [](const float* x, uint8_t* to) { EncodeSymmetric(x, 4, to); };
    case GgmlType::kQ5_0:
      return [](const float* x, uint8_t* to) { EncodeSymmetric(x, 5, to); };
    case GgmlType::kQ4_1:
      return [](const float* x, uint8_t* to) { EncodeOffset(x, 4, to); };
    case GgmlType::kQ5_1:
      return [](const float* x, uint8_t* to) { EncodeOffset(x, 5, to); };
    default:
      return nullptr;
  }
}

template <GgmlType kType>
class GgufFormat final : public WeightFormat {
 public:
  const std::string& name() const override { return name_; }

  std::vector<PartSpec> Parts(at::IntArrayRef shape) const override {
    if (shape.empty() || shape.back() % Block::kElements != 0) {
      throw StatusError(absl::InvalidArgumentError(
          absl::StrCat(name_, " cannot hold a weight of shape [", absl::StrJoin(shape, ", "),
                       "]: its last dimension must be a multiple of ", Block::kElements)));
    }
    return {{at::kByte, {Rows(shape), shape.back() / Block::kElements * Block::kBytes}}};
  }

  std::vector<at::Tensor> Encode(const at::Tensor& weight) const override {
    const EncodeBlock encode = EncoderOf(kType);
    if (encode == nullptr) {
      throw StatusError(absl::UnimplementedError(
          absl::StrCat(name_,
                       " is only read; GGUF types to quantize to are Q8_0, Q4_0, Q4_1, "
                       "Q5_0 and Q5_1")));
    }
    const PartSpec spec = Parts(weight.sizes())[0];
    // Encoding happens once a load, where weights come from the file: on the CPU alone.
    const at::Tensor plain = weight.to(at::TensorOptions(at::kCPU).dtype(at::kFloat)).contiguous();
    const at::Tensor blocks = at::empty(spec.shape, at::TensorOptions(spec.dtype));
    const float* from = plain.const_data_ptr<float>();
    auto* to = blocks.mutable_data_ptr<uint8_t>();
    ForBlocks(plain.numel(), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        encode(from + i * Block::kElements, to + i * Block::kBytes);
      }
    });
    return {blocks.to(weight.device())};
  }

  at::Tensor Decode(const std::vector<at::Tensor>& parts, at::IntArrayRef shape,
                    c10::ScalarType dtype) const override {
    const PartSpec spec = Parts(shape)[0];
    TORCH_CHECK(parts.size() == 1 && parts[0].scalar_type() == spec.dtype &&
                    parts[0].sizes() == at::IntArrayRef(spec.shape),
                name_, " holds [", absl::StrJoin(shape, ", "), "] in one uint8 tensor [",
                absl::StrJoin(spec.shape, ", "), "]");
    const at::Tensor blocks = parts[0].contiguous();
    // The types decoding can write; others are rounded from float32.
    const bool is_direct = dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16;
    const at::Tensor out = at::empty(shape, blocks.options().dtype(is_direct ? dtype : at::kFloat));
    const int64_t count = out.numel() / Block::kElements;
#ifdef KINO_WITH_CUDA
    if (blocks.is_cuda()) {
      const c10::cuda::CUDAGuard guard(blocks.device());
      C10_CUDA_CHECK(cuda::DecodeGguf(kType, blocks.const_data_ptr<uint8_t>(), count,
                                      *cuda::ElementOf(out.scalar_type()), out.mutable_data_ptr(),
                                      cuda::StreamOf(blocks)));
      return out.to(dtype);
    }
#endif
    TORCH_CHECK(blocks.is_cpu(), name_, " is decoded on the CPU and on CUDA, got ",
                blocks.device().str());
    switch (out.scalar_type()) {
      case at::kHalf:
        DecodeInto<c10::Half>(blocks, count, out);
        break;
      case at::kBFloat16:
        DecodeInto<c10::BFloat16>(blocks, count, out);
        break;
      default:
        DecodeInto<float>(blocks, count, out);
    }
    return out.to(dtype);
  }

 private:
  using Block = GgufBlock<kType>;

  static int64_t Rows(at::IntArrayRef shape) {
    int64_t rows = 1;
    for (const int64_t extent : shape.slice(0, shape.size() - 1)) rows *= extent;
    return rows;
  }
  // body(first block, block behind the last) in parallel.
  template <typename Body>
  static void ForBlocks(int64_t elements, const Body& body) {
    at::parallel_for(0, elements / Block::kElements, kElementsPerTask / Block::kElements, body);
  }
  template <typename T>
  static void DecodeInto(const at::Tensor& blocks, int64_t count, const at::Tensor& out) {
    const auto* from = blocks.const_data_ptr<uint8_t>();
    T* to = out.mutable_data_ptr<T>();
    ForBlocks(count * Block::kElements, [&](int64_t begin, int64_t end) {
      DecodeBlocks<kType>(from + begin * Block::kBytes, end - begin, to + begin * Block::kElements);
    });
  }

  const std::string name_ = GgmlTypeName(kType);
};

}  // namespace

std::shared_ptr<const WeightFormat> MakeGgufFormat(GgmlType type) {
  switch (type) {
    case GgmlType::kQ4_0:
      return std::make_shared<GgufFormat<GgmlType::kQ4_0>>();
    case GgmlType::kQ4_1:
      return std::make_shared<GgufFormat<GgmlType::kQ4_1>>();
    case GgmlType::kQ5_0:
      return std::make_shared<GgufFormat<GgmlType::kQ5_0>>();
    case GgmlType::kQ5_1:
      return std::make_shared<GgufFormat<GgmlType::kQ5_1>>();
    case GgmlType::kQ8_0:
      return std::make_shared<GgufFormat<GgmlType::kQ8_0>>();
    case GgmlType::kQ2_K:
      return std::make_shared<GgufFormat<GgmlType::kQ2_K>>();
    case GgmlType::kQ3_K:
      return std::make_shared<GgufFormat<GgmlType::kQ3_K>>();
    case GgmlType::kQ4_K:
      return std::make_shared<GgufFormat<GgmlType::kQ4_K>>();
    case GgmlType::kQ5_K:
      return std::make_shared<GgufFormat<GgmlType::kQ5_K>>();
    case GgmlType::kQ6_K:
      return std::make_shared<GgufFormat<GgmlType::kQ6_K>>();
    case GgmlType::kIQ4_NL:
      return std::make_shared<GgufFormat<GgmlType::kIQ4_NL>>();
    case GgmlType::kIQ4_XS:
      return std::make_shared<GgufFormat<GgmlType::kIQ4_XS>>();
    case GgmlType::kNone:
      break;
  }
  TORCH_CHECK(false, "no GGUF format for a plain dtype");
}

}  // namespace kino::engine
