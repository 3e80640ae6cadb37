#include "engine/quant/row_scaled.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Float8_e4m3fn.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <array>

#ifdef KINO_WITH_CUDA
#include "engine/core/cuda_tensors.h"
#include "engine/quant/cuda/dequantize.h"
#endif

namespace kino::engine {
namespace {

// Elements below which waking another thread costs more than it saves.
constexpr int64_t kGrain = 1 << 15;
// Elements quantized at a time.
constexpr int64_t kChunk = 1 << 20;

struct Int8Value {
  float operator()(int8_t value) const { return static_cast<float>(value); }
};

// A table: the conversion is a dozen integer operations otherwise.
class Float8Value {
 public:
  Float8Value() {
    for (size_t bits = 0; bits < table_.size(); ++bits) {
      table_[bits] = static_cast<float>(
          c10::Float8_e4m3fn(static_cast<uint8_t>(bits), c10::Float8_e4m3fn::from_bits()));
    }
  }
  float operator()(c10::Float8_e4m3fn value) const { return table_[value.x]; }

 private:
  std::array<float, 256> table_;
};

template <typename Q, typename ToFloat, typename T>
void DecodeCpu(const Q* values, const ToFloat& to_float, const float* scales, float factor,
               int64_t rows, int64_t columns, T* out) {
  at::parallel_for(0, rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, columns)),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t row = begin; row < end; ++row) {
                       const float scale = scales[row];
                       const Q* from = values + row * columns;
                       T* to = out + row * columns;
                       for (int64_t i = 0; i < columns; ++i)
                         to[i] = static_cast<T>(to_float(from[i]) * scale * factor);
                     }
                   });
}

template <typename T>
void DecodeCpu(const at::Tensor& values, const at::Tensor& scales, float factor, at::Tensor& out) {
  const float* const scale = scales.const_data_ptr<float>();
  T* const to = out.mutable_data_ptr<T>();
  const int64_t rows = values.size(0), columns = values.size(1);
  if (values.scalar_type() == at::kChar) {
    DecodeCpu(values.const_data_ptr<int8_t>(), Int8Value(), scale, factor, rows, columns, to);
  } else {
    static const Float8Value to_float;
    DecodeCpu(values.const_data_ptr<c10::Float8_e4m3fn>(), to_float, scale, factor, rows, columns,
              to);
  }
}

}  // namespace

QuantizedRows QuantizeInChunks(const at::Tensor& x, c10::ScalarType dtype,
                               absl::FunctionRef<QuantizedRows(const at::Tensor&)> quantize) {
  const int64_t rows = x.size(0);
  const int64_t step = std::max<int64_t>(1, kChunk / std::max<int64_t>(1, x.size(1)));
  if (rows <= step) return quantize(x);
  QuantizedRows out = {.values = at::empty(x.sizes(), x.options().dtype(dtype)),
                       .scales = at::empty({rows}, x.options().dtype(at::kFloat))};
  for (int64_t begin = 0; begin < rows; begin += step) {
    const int64_t count = std::min(step, rows - begin);
    const QuantizedRows some = quantize(x.narrow(0, begin, count));
    out.values.narrow(0, begin, count).copy_(some.values);
    out.scales.narrow(0, begin, count).copy_(some.scales);
  }
  return out;
}

at::Tensor DecodeRowsComposed(const at::Tensor& values, const at::Tensor& scales, float factor,
                              c10::ScalarType dtype) {
  at::Tensor decoded = values.to(at::kFloat).mul_(scales.unsqueeze(1));
  if (factor != 1.0f) decoded.mul_(factor);
  return decoded.to(dtype);
}

at::Tensor DecodeRows(const at::Tensor& values, const at::Tensor& scales, float factor,
                      c10::ScalarType dtype) {
  TORCH_CHECK(values.dim() == 2 && scales.dim() == 1 && scales.size(0) == values.size(0) &&
                  scales.scalar_type() == at::kFloat &&
                  (values.scalar_type() == at::kChar || values.scalar_type() == at::kFloat8_e4m3fn),
              "values ", values.sizes(), " ", values.scalar_type(), " with row scales ",
              scales.sizes(), " ", scales.scalar_type());
  if (!values.is_contiguous() || !scales.is_contiguous())
    return DecodeRowsComposed(values, scales, factor, dtype);
#ifdef KINO_WITH_CUDA
  if (values.is_cuda()) {
    if (const auto element = cuda::ElementOf(dtype)) {
      at::Tensor out = at::empty(values.sizes(), values.options().dtype(dtype));
      const c10::cuda::CUDAGuard guard(values.device());
      C10_CUDA_CHECK(cuda::DecodeScaledRows(*element, values.scalar_type() != at::kChar,
                                            values.const_data_ptr(), scales.const_data_ptr<float>(),
                                            factor, values.size(0), values.size(1),
                                            out.mutable_data_ptr(), cuda::StreamOf(out)));
      return out;
    }
  }
#endif
  if (!values.is_cpu()) return DecodeRowsComposed(values, scales, factor, dtype);
  at::Tensor out = at::empty(values.sizes(), values.options().dtype(dtype));
  switch (dtype) {
    case at::kFloat:
      DecodeCpu<float>(values, scales, factor, out);
      return out;
    case at::kHalf:
      DecodeCpu<c10::Half>(values, scales, factor, out);
      return out;
    case at::kBFloat16:
      DecodeCpu<c10::BFloat16>(values, scales, factor, out);
      return out;
    default:
      return DecodeRowsComposed(values, scales, factor, dtype);
  }
}

}  // namespace kino::engine
