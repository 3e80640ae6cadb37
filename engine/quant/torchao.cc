#include "engine/quant/torchao.h"

#include <ATen/ops/_scaled_mm.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/round.h>

#include <algorithm>
#include <limits>

#include "engine/ops/linear.h"
#include "engine/quant/int8_matmul.h"
#include "engine/quant/row_scaled.h"

#ifdef KINO_WITH_CUDA
#include "engine/core/cuda_tensors.h"
#endif

namespace kino::engine {
namespace {

constexpr double kFloat8Max = 448;  // of float8_e4m3fn

// x: [rows, columns]. Half of the range (127.5), not 127, as torchao's symmetric mapping has it.
QuantizedRows QuantizeInt8(const at::Tensor& x) {
  at::Tensor scales =
      at::clamp_min(x.abs().amax(1) / 127.5, std::numeric_limits<float>::epsilon()).to(at::kFloat);
  at::Tensor values = (x * at::reciprocal(scales).unsqueeze(1)).round_().clamp_(-128, 127);
  return {.values = values.to(at::kChar), .scales = std::move(scales)};
}

QuantizedRows QuantizeFloat8(const at::Tensor& x) {
  at::Tensor scales = (x.abs().amax(1) / kFloat8Max).to(at::kFloat);
  const at::Tensor divisors = scales.masked_fill(scales == 0, 1).unsqueeze(1);
  at::Tensor values = (x.to(at::kFloat) / divisors).clamp_(-kFloat8Max, kFloat8Max);
  return {.values = values.to(at::kFloat8_e4m3fn), .scales = std::move(scales)};
}

class RowFormat : public WeightFormat {
 public:
  const std::string& name() const override { return name_; }

  std::vector<PartSpec> Parts(at::IntArrayRef shape) const override {
    TORCH_CHECK(shape.size() == 2, name_, " holds matrices, got shape ", shape);
    return {{is_float8_ ? at::kFloat8_e4m3fn : at::kChar, shape.vec()}, {at::kFloat, {shape[0]}}};
  }

  std::vector<at::Tensor> Encode(const at::Tensor& weight) const override {
    TORCH_CHECK(weight.dim() == 2, name_, " holds matrices, got ", weight.sizes());
    QuantizedRows rows = QuantizeInChunks(weight, is_float8_ ? at::kFloat8_e4m3fn : at::kChar,
                                          is_float8_ ? QuantizeFloat8 : QuantizeInt8);
    return {std::move(rows.values), std::move(rows.scales)};
  }

  at::Tensor Decode(const std::vector<at::Tensor>& parts, at::IntArrayRef shape,
                    c10::ScalarType dtype) const override {
    CheckParts(parts, shape);
    return DecodeRows(parts[0], parts[1], 1, dtype);
  }

 protected:
  RowFormat(std::string name, bool is_float8) : name_(std::move(name)), is_float8_(is_float8) {}

  void CheckParts(const std::vector<at::Tensor>& parts, at::IntArrayRef shape) const {
    TORCH_CHECK(parts.size() == 2 && parts[0].sizes() == shape && parts[1].numel() == shape[0],
                name_, ": parts do not hold a weight of ", shape);
  }

  // Calls layer(tokens [rows, in]) -> [rows, out] for some rows of x at a time.
  template <typename Layer>
  at::Tensor InChunks(const at::Tensor& x, at::IntArrayRef shape, const Layer& layer) const {
    const at::Tensor tokens = x.reshape({-1, shape[1]});
    std::vector<int64_t> out_shape = x.sizes().vec();
    out_shape.back() = shape[0];
    const int64_t at_once = DynamicRowsPerChunk(x);
    // One piece is the output, without a copy.
    if (tokens.size(0) > 0 && tokens.size(0) <= at_once)
      return layer(tokens).to(x.scalar_type()).view(out_shape);
    at::Tensor out = at::empty({tokens.size(0), shape[0]}, x.options());
    for (int64_t begin = 0; begin < tokens.size(0); begin += at_once) {
      const int64_t count = std::min(at_once, tokens.size(0) - begin);
      out.narrow(0, begin, count).copy_(layer(tokens.narrow(0, begin, count)));
    }
    return out.view(out_shape);
  }

 private:
  std::string name_;
  bool is_float8_;
};

class Int8WeightOnly : public RowFormat {
 public:
  Int8WeightOnly() : RowFormat("int8wo", false) {}

  at::Tensor Linear(const at::Tensor& x, const std::vector<at::Tensor>& parts,
                    at::IntArrayRef shape, const at::Tensor& bias) const override {
    CheckParts(parts, shape);
    at::Tensor y = engine::Linear(x, parts[0].to(x.scalar_type()), {});
    y.mul_(parts[1].to(x.scalar_type()));
    if (bias.defined()) y.add_(bias);
    return y;
  }
};

class Int8Dynamic : public RowFormat {
 public:
  Int8Dynamic() : RowFormat("int8dyn", false) {}

  at::Tensor Linear(const at::Tensor& x, const std::vector<at::Tensor>& parts,
                    at::IntArrayRef shape, const at::Tensor& bias) const override {
    CheckParts(parts, shape);
    return InChunks(x, shape, [&](const at::Tensor& tokens) {
      const QuantizedRows quantized = QuantizeInt8(tokens);
      at::Tensor y = Int8MatMul(quantized.values, parts[0]).to(at::kFloat);
      y.mul_(quantized.scales.unsqueeze(1));
      // torchao rounds to the output's type between the two scales.
      y = y.to(x.scalar_type()).to(at::kFloat).mul_(parts[1]);
      if (bias.defined()) y.add_(bias);
      return y;
    });
  }
};

class Float8WeightOnly : public RowFormat {
 public:
  Float8WeightOnly() : RowFormat("fp8wo", true) {}

  at::Tensor Linear(const at::Tensor& x, const std::vector<at::Tensor>& parts,
                    at::IntArrayRef shape, const at::Tensor& bias) const override {
    at::Tensor y = engine::Linear(x, Decode(parts, shape, x.scalar_type()), {});
    if (bias.defined()) y.add_(bias);
    return y;
  }
};

class Float8Dynamic : public RowFormat {
 public:
  Float8Dynamic() : RowFormat("fp8dyn", true) {}

  at::Tensor Linear(const at::Tensor& x, const std::vector<at::Tensor>& parts,
                    at::IntArrayRef shape, const at::Tensor& bias) const override {
    CheckParts(parts, shape);
    const at::Tensor& weight = parts[0];
    const bool scaled_mm = CanScaledMm(x, shape);
    const at::Tensor plain = scaled_mm ? at::Tensor() : weight.to(at::kFloat).t();
    return InChunks(x, shape, [&](const at::Tensor& tokens) {
      const QuantizedRows quantized = QuantizeFloat8(tokens);
      const at::Tensor row_scale = quantized.scales.unsqueeze(1);
      const at::Tensor column_scale = parts[1].unsqueeze(0);
      if (scaled_mm) {
        return at::_scaled_mm(
            quantized.values, weight.t(), row_scale, column_scale,
            bias.defined() ? std::optional<at::Tensor>(bias.to(at::kBFloat16)) : std::nullopt,
            /*scale_result=*/std::nullopt, at::kBFloat16,
            /*use_fast_accum=*/true);
      }
      at::Tensor y = at::mm(quantized.values.to(at::kFloat), plain);
      y.mul_(row_scale).mul_(column_scale);
      if (bias.defined()) y.add_(bias);
      return y;
    });
  }

 private:
  static bool CanScaledMm([[maybe_unused]] const at::Tensor& x, at::IntArrayRef shape) {
    if (shape[0] % 16 != 0 || shape[1] % 16 != 0) return false;
#ifdef KINO_WITH_CUDA
    return x.is_cuda() && x.scalar_type() == at::kBFloat16 &&
           cuda::ComputeCapability(x.device()) >= 89;
#else
    return false;
#endif
  }
};

}  // namespace

std::shared_ptr<const WeightFormat> MakeTorchAoInt8WeightOnly() {
  return std::make_shared<Int8WeightOnly>();
}
std::shared_ptr<const WeightFormat> MakeTorchAoInt8Dynamic() {
  return std::make_shared<Int8Dynamic>();
}
std::shared_ptr<const WeightFormat> MakeTorchAoFloat8WeightOnly() {
  return std::make_shared<Float8WeightOnly>();
}
std::shared_ptr<const WeightFormat> MakeTorchAoFloat8Dynamic() {
  return std::make_shared<Float8Dynamic>();
}

}  // namespace kino::engine
