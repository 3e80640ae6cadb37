#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bucketize.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>

#include "engine/quant/bitsandbytes.h"

#ifdef KINO_WITH_CUDA
#include "engine/core/cuda_tensors.h"
#include "engine/quant/cuda/dequantize.h"
#endif

namespace kino::engine {
namespace {

// A block of zeros is divided by this.
constexpr double kSmallestScale = 1e-38;
// The 8-bit code is looked up on a grid of so many steps over [-1, 1].
constexpr int64_t kCodeGrid = 65536;
// Blocks for a thread at least.
constexpr int64_t kGrain = 512;
constexpr int64_t kMaxBlock = 4096;

constexpr std::array<float, 16> kNf4Code = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

// One sign bit, two of exponent, one of mantissa; over the largest, 12.
constexpr std::array<float, 16> kFp4Code = {
    0.0f, 0.0625f / 12,  8.0f / 12,  1.0f,  4.0f / 12,  6.0f / 12,  2.0f / 12,  3.0f / 12,
    0.0f, -0.0625f / 12, -8.0f / 12, -1.0f, -4.0f / 12, -6.0f / 12, -2.0f / 12, -3.0f / 12,
};

// fp4's codes in ascending order of value; of its two zeros bitsandbytes takes 0 for what is below.
constexpr std::array<uint8_t, 16> kFp4Order = {11, 10, 13, 12, 15, 14, 9, 0,
                                               8,  1,  6,  7,  4,  5,  2, 3};
constexpr std::array<uint8_t, 16> kNf4Order = {0, 1, 2,  3,  4,  5,  6,  7,
                                               8, 9, 10, 11, 12, 13, 14, 15};

const std::array<uint8_t, 16>& OrderOf(Bnb4BitType type) {
  return type == Bnb4BitType::kNf4 ? kNf4Order : kFp4Order;
}

// The middles between neighbouring values, ascending: a value on one belongs to the lower code.
std::array<float, 15> BoundsOf(Bnb4BitType type) {
  const std::array<float, 16>& code = Bnb4BitCode(type);
  const std::array<uint8_t, 16>& order = OrderOf(type);
  std::array<float, 15> bounds;
  for (size_t i = 0; i < bounds.size(); ++i) bounds[i] = (code[order[i]] + code[order[i + 1]]) / 2;
  return bounds;
}

int64_t BlocksOf(int64_t elements, int64_t block) { return (elements + block - 1) / block; }

template <typename T>
at::Tensor OnDevice(const T& values, c10::ScalarType dtype, c10::Device device) {
  return at::from_blob(const_cast<typename T::value_type*>(values.data()),
                       {static_cast<int64_t>(values.size())}, at::TensorOptions(dtype))
      .to(device, dtype, /*non_blocking=*/false, /*copy=*/true);
}

// The code nearest to each step of the grid. uint8 [kCodeGrid], CPU.
const at::Tensor& CodeOfGrid() {
  static const at::Tensor* const table = [] {
    const at::Tensor& code = BnbDynamicCode();
    const float* const values = code.const_data_ptr<float>();
    auto* made = new at::Tensor(at::empty({kCodeGrid}, at::kByte));
    uint8_t* const to = made->mutable_data_ptr<uint8_t>();
    int64_t nearest = 0;
    for (int64_t i = 0; i < kCodeGrid; ++i) {
      const float value = -1.0f + 2.0f * static_cast<float>(i) / (kCodeGrid - 1);
      while (nearest < 255 && 0.5f * (values[nearest] + values[nearest + 1]) < value) ++nearest;
      to[i] = static_cast<uint8_t>(nearest);
    }
    return made;
  }();
  return *table;
}

struct NestedScales {
  at::Tensor codes;   // uint8 [blocks]
  at::Tensor scales;  // float32 [ceil(blocks / 256)]
  at::Tensor offset;  // float32 [1]
};

// scales: float32 [blocks].
NestedScales NestScales(const at::Tensor& scales) {
  const int64_t blocks = scales.size(0);
  const int64_t outer = BlocksOf(blocks, kBnbNestedBlock);
  NestedScales nested;
  nested.offset = scales.mean();
  const at::Tensor centred =
      at::constant_pad_nd(scales - nested.offset, {0, outer * kBnbNestedBlock - blocks})
          .view({outer, kBnbNestedBlock});
  nested.offset = nested.offset.view({1});
  nested.scales = centred.abs().amax(1);
  const at::Tensor is_zero = nested.scales == 0;
  const at::Tensor inverse = at::reciprocal(nested.scales).masked_fill_(is_zero, 0);
  const at::Tensor normal = at::clamp(centred * inverse.unsqueeze(1), -1, 1);
  // In float64 the product and sum are exact: bitsandbytes has one rounding (a fused multiply-add)
  // where float32 would have two.
  const at::Tensor step = ((normal + 1) * 0.5)
                              .to(at::kDouble)
                              .mul_(static_cast<double>(kCodeGrid - 1))
                              .add_(0.5)
                              .to(at::kFloat)
                              .to(at::kLong);
  at::Tensor codes = CodeOfGrid().to(scales.device()).index_select(0, step.view(-1));
  // A block of zeros has code 0 (times its zero scale).
  codes = codes.view({outer, kBnbNestedBlock}).masked_fill_(is_zero.unsqueeze(1), 0);
  nested.codes = codes.view(-1).narrow(0, 0, blocks).clone();
  return nested;
}

// The parts, given packed codes and plain scales.
std::vector<at::Tensor> PartsOf(at::Tensor packed, at::Tensor scales, const Bnb4BitLayout& layout) {
  if (!layout.nested) return {std::move(packed), std::move(scales)};
  NestedScales nested = NestScales(scales);
  at::Tensor code = BnbDynamicCode().to(scales.device(), at::kFloat, false, /*copy=*/true);
  return {std::move(packed), std::move(nested.codes), std::move(nested.scales), std::move(code),
          std::move(nested.offset)};
}

// float32 [blocks] of the parts.
at::Tensor PlainScales(const std::vector<at::Tensor>& parts, const Bnb4BitLayout& layout) {
  if (!layout.nested) return parts[1];
  const at::Tensor& codes = parts[1];
  const at::Tensor outer =
      at::arange(codes.size(0), codes.options().dtype(at::kLong)).div_(kBnbNestedBlock, "floor");
  return parts[3]
      .index_select(0, codes.to(at::kLong))
      .mul_(parts[2].index_select(0, outer))
      .add_(parts[4]);
}

template <typename T>
void EncodeCpu(const T* weight, int64_t elements, const Bnb4BitLayout& layout, uint8_t* packed,
               float* scales) {
  const std::array<float, 15> bounds = BoundsOf(layout.type);
  const std::array<uint8_t, 16>& order = OrderOf(layout.type);
  const int64_t block = layout.block;
  const auto smallest = static_cast<float>(kSmallestScale);
  at::parallel_for(0, BlocksOf(elements, block), kGrain, [&](int64_t begin, int64_t end) {
    std::array<float, kMaxBlock> values;
    std::array<int32_t, kMaxBlock> codes;
    for (int64_t b = begin; b < end; ++b) {
      const int64_t start = b * block;
      const int64_t count = std::min(block, elements - start);
      float largest = 0;
      for (int64_t i = 0; i < count; ++i) {
        values[i] = static_cast<float>(weight[start + i]);
        largest = std::max(largest, std::fabs(values[i]));
      }
      const float divisor = std::max(largest, smallest);
      if (count == block) {
        const float inverse = 1.0f / divisor;
        for (int64_t i = 0; i < count; ++i) values[i] *= inverse;
        scales[b] = largest;
      } else {  // the last, short block is divided, and its scale is never zero
        for (int64_t i = 0; i < count; ++i) values[i] /= divisor;
        scales[b] = divisor;
      }
      for (int64_t i = 0; i < count; ++i) values[i] = std::clamp(values[i], -1.0f, 1.0f);
      if (count % 2 != 0) values[count] = 0;
      const int64_t padded = count + count % 2;
      std::fill_n(codes.begin(), padded, 0);
      for (const float bound : bounds) {
        for (int64_t i = 0; i < padded; ++i) codes[i] += values[i] > bound ? 1 : 0;
      }
      uint8_t* const to = packed + start / 2;
      for (int64_t i = 0; i < padded; i += 2) {
        to[i / 2] = static_cast<uint8_t>(order[static_cast<size_t>(codes[i])] << 4 |
                                         order[static_cast<size_t>(codes[i + 1])]);
      }
    }
  });
}

template <typename T>
void DecodeCpu(const uint8_t* packed, const float* scales, const Bnb4BitLayout& layout,
               int64_t elements, T* out) {
  const std::array<float, 16>& code = Bnb4BitCode(layout.type);
  const int64_t block = layout.block;
  at::parallel_for(0, BlocksOf(elements, block), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      std::array<T, 16> table;
      for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<T>(code[i] * scales[b]);
      const int64_t count = std::min(block, elements - b * block);
      const uint8_t* const from = packed + b * block / 2;
      T* const to = out + b * block;
      for (int64_t i = 0; i < count / 2; ++i) {
        to[2 * i] = table[from[i] >> 4];
        to[2 * i + 1] = table[from[i] & 15];
      }
      if (count % 2 != 0) to[count - 1] = table[from[count / 2] >> 4];
    }
  });
}

#ifdef KINO_WITH_CUDA
void DecodeCuda(const std::vector<at::Tensor>& parts, const Bnb4BitLayout& layout,
                cuda::Element element, at::Tensor& out) {
  cuda::BlockScales scales;
  if (layout.nested) {
    scales = {.plain = nullptr,
              .codes = parts[1].const_data_ptr<uint8_t>(),
              .nested = parts[2].const_data_ptr<float>(),
              .code = parts[3].const_data_ptr<float>(),
              .offset = parts[4].const_data_ptr<float>(),
              .nested_block = kBnbNestedBlock};
  } else {
    scales.plain = parts[1].const_data_ptr<float>();
  }
  const c10::cuda::CUDAGuard guard(out.device());
  C10_CUDA_CHECK(cuda::Decode4Bit(element, parts[0].const_data_ptr<uint8_t>(), scales,
                                  Bnb4BitCode(layout.type).data(), layout.block, out.numel(),
                                  out.mutable_data_ptr(), cuda::StreamOf(out)));
}
#endif

class Bnb4BitFormat : public WeightFormat {
 public:
  explicit Bnb4BitFormat(const Bnb4BitLayout& layout) : layout_(layout) {
    TORCH_CHECK(
        layout.block >= 32 && layout.block <= kMaxBlock && (layout.block & (layout.block - 1)) == 0,
        "4-bit blocks of ", layout.block, ", expected a power of two from 32 to ", kMaxBlock);
    name_ = layout.type == Bnb4BitType::kNf4 ? "nf4" : "fp4";
    if (layout.nested) name_ += "_dq";
  }
  const std::string& name() const override { return name_; }

  std::vector<PartSpec> Parts(at::IntArrayRef shape) const override {
    const int64_t elements = c10::multiply_integers(shape);
    const int64_t blocks = BlocksOf(elements, layout_.block);
    std::vector<PartSpec> parts = {{at::kByte, {(elements + 1) / 2}}};
    if (layout_.nested) {
      parts.push_back({at::kByte, {blocks}});
      parts.push_back({at::kFloat, {BlocksOf(blocks, kBnbNestedBlock)}});
      parts.push_back({at::kFloat, {256}});
      parts.push_back({at::kFloat, {1}});
    } else {
      parts.push_back({at::kFloat, {blocks}});
    }
    return parts;
  }

  std::vector<at::Tensor> Encode(const at::Tensor& weight) const override {
    if (!weight.is_cpu()) return EncodeBnb4BitComposed(weight, layout_);
    const at::Tensor flat = weight.contiguous();
    const int64_t elements = flat.numel();
    at::Tensor packed = at::empty({(elements + 1) / 2}, at::kByte);
    at::Tensor scales = at::empty({BlocksOf(elements, layout_.block)}, at::kFloat);
    uint8_t* const to = packed.mutable_data_ptr<uint8_t>();
    float* const scale = scales.mutable_data_ptr<float>();
    switch (flat.scalar_type()) {
      case at::kFloat:
        EncodeCpu(flat.const_data_ptr<float>(), elements, layout_, to, scale);
        break;
      case at::kHalf:
        EncodeCpu(flat.const_data_ptr<c10::Half>(), elements, layout_, to, scale);
        break;
      case at::kBFloat16:
        EncodeCpu(flat.const_data_ptr<c10::BFloat16>(), elements, layout_, to, scale);
        break;
      default:
        return EncodeBnb4BitComposed(weight, layout_);
    }
    return PartsOf(std::move(packed), std::move(scales), layout_);
  }

  at::Tensor Decode(const std::vector<at::Tensor>& parts, at::IntArrayRef shape,
                    c10::ScalarType dtype) const override {
    CheckParts(parts, shape);
    at::Tensor out = at::empty(shape, parts[0].options().dtype(dtype));
#ifdef KINO_WITH_CUDA
    if (out.is_cuda()) {
      if (const auto element = cuda::ElementOf(dtype)) {
        DecodeCuda(parts, layout_, *element, out);
        return out;
      }
    }
#endif
    if (!out.is_cpu()) return DecodeBnb4BitComposed(parts, shape, dtype, layout_);
    const at::Tensor scales = PlainScales(parts, layout_);
    const auto* const packed = parts[0].const_data_ptr<uint8_t>();
    const auto* const scale = scales.const_data_ptr<float>();
    const int64_t elements = out.numel();
    switch (dtype) {
      case at::kFloat:
        DecodeCpu(packed, scale, layout_, elements, out.mutable_data_ptr<float>());
        return out;
      case at::kHalf:
        DecodeCpu(packed, scale, layout_, elements, out.mutable_data_ptr<c10::Half>());
        return out;
      case at::kBFloat16:
        DecodeCpu(packed, scale, layout_, elements, out.mutable_data_ptr<c10::BFloat16>());
        return out;
      default:
        return DecodeBnb4BitComposed(parts, shape, dtype, layout_);
    }
  }

 private:
  void CheckParts(const std::vector<at::Tensor>& parts, at::IntArrayRef shape) const {
    const std::vector<PartSpec> specs = Parts(shape);
    TORCH_CHECK(parts.size() == specs.size(), name_, ": ", parts.size(), " parts, expected ",
                specs.size());
    for (size_t i = 0; i < parts.size(); ++i) {
      TORCH_CHECK(parts[i].scalar_type() == specs[i].dtype &&
                      parts[i].sizes() == at::IntArrayRef(specs[i].shape) &&
                      parts[i].is_contiguous(),
                  name_, ": part ", i, " is ", parts[i].sizes(), " ", parts[i].scalar_type(),
                  " for a weight of ", shape);
    }
  }

  Bnb4BitLayout layout_;
  std::string name_;
};

}  // namespace

const std::array<float, 16>& Bnb4BitCode(Bnb4BitType type) {
  return type == Bnb4BitType::kNf4 ? kNf4Code : kFp4Code;
}

const at::Tensor& BnbDynamicCode() {
  // A sign, a run of zeros for the decimal exponent, and what bits remain as a linear fraction
  // (8-Bit Approximations for Parallelism in Deep Learning, arXiv 1511.04561). bitsandbytes makes
  // its edges with torch.linspace, whose last bits depend on the CPU; these are those of one with
  // fused multiply-add, on every CPU.
  static const at::Tensor* const code = [] {
    constexpr std::array<float, 7> kPowers = {1e-6F, 1e-5F, 1e-4F, 1e-3F, 1e-2F, 1e-1F, 1e0F};
    constexpr float kFirst = 0.1F, kLast = 1;
    std::vector<float> values = {0, 1};
    for (size_t i = 0; i < kPowers.size(); ++i) {
      const int items = 1 << i;
      const float step = (kLast - kFirst) / static_cast<float>(items);
      // From the nearer end.
      const auto edge = [&](int index) {
        return index < (items + 1) / 2 ? std::fma(step, static_cast<float>(index), kFirst)
                                       : std::fma(-step, static_cast<float>(items - index), kLast);
      };
      for (int index = 0; index < items; ++index) {
        const float middle = (edge(index) + edge(index + 1)) / 2 * kPowers.at(i);
        values.push_back(middle);
        values.push_back(-middle);
      }
    }
    std::sort(values.begin(), values.end());
    return new at::Tensor(at::tensor(values, at::TensorOptions(at::kFloat)));
  }();
  return *code;
}

std::vector<at::Tensor> EncodeBnb4BitComposed(const at::Tensor& weight,
                                              const Bnb4BitLayout& layout) {
  const at::Tensor flat = weight.reshape(-1).to(at::kFloat);
  const int64_t elements = flat.size(0);
  const int64_t full = elements / layout.block * layout.block;
  const at::Tensor blocks = flat.narrow(0, 0, full).view({-1, layout.block});
  std::vector<at::Tensor> scales = {blocks.abs().amax(1)};
  std::vector<at::Tensor> normal = {
      (blocks * at::reciprocal(at::clamp_min(scales[0], kSmallestScale)).unsqueeze(1)).view(-1)};
  if (full < elements) {
    const at::Tensor rest = flat.narrow(0, full, elements - full);
    const at::Tensor scale = at::clamp_min(rest.abs().amax(), kSmallestScale).view({1});
    scales.push_back(scale);
    normal.push_back(rest / scale);
  }
  const at::Tensor bounds = OnDevice(BoundsOf(layout.type), at::kFloat, weight.device());
  const at::Tensor order = OnDevice(OrderOf(layout.type), at::kByte, weight.device());
  at::Tensor values = at::clamp(at::cat(normal), -1, 1);
  if (elements % 2 != 0) values = at::constant_pad_nd(values, {0, 1});
  const at::Tensor codes =
      order.index_select(0, at::bucketize(values, bounds)).view({(elements + 1) / 2, 2});
  at::Tensor packed = codes.select(1, 0).mul(16).add_(codes.select(1, 1));
  return PartsOf(std::move(packed), at::cat(scales), layout);
}

at::Tensor DecodeBnb4BitComposed(const std::vector<at::Tensor>& parts, at::IntArrayRef shape,
                                 c10::ScalarType dtype, const Bnb4BitLayout& layout) {
  const at::Tensor& packed = parts[0];
  const at::Tensor code = OnDevice(Bnb4BitCode(layout.type), at::kFloat, packed.device());
  const at::Tensor codes =
      at::stack({packed.bitwise_right_shift(4), packed.bitwise_and(15)}, 1).view(-1);
  const int64_t elements = c10::multiply_integers(shape);
  at::Tensor values = code.index_select(0, codes.to(at::kLong)).narrow(0, 0, elements);
  const int64_t blocks = BlocksOf(elements, layout.block);
  values = at::constant_pad_nd(values, {0, blocks * layout.block - elements})
               .view({blocks, layout.block});
  values = (values * PlainScales(parts, layout).unsqueeze(1)).view(-1).narrow(0, 0, elements);
  return values.to(dtype).view(shape);
}

std::shared_ptr<const WeightFormat> MakeBnb4Bit(const Bnb4BitLayout& layout) {
  return std::make_shared<Bnb4BitFormat>(layout);
}

}  // namespace kino::engine
