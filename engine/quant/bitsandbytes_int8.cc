#include <ATen/ops/addmm.h>
#include <ATen/ops/any.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/round.h>

#include <algorithm>

#include "engine/quant/bitsandbytes.h"
#include "engine/quant/int8_matmul.h"
#include "engine/quant/row_scaled.h"

namespace kino::engine {
namespace {

// bitsandbytes' own roundings of 1/127 and 1/127^2.
constexpr float kInverse127 = 7.874015718698502e-3f;
constexpr float kInverse127Squared = 6.200124e-05f;

// x: [rows, columns] -> int8, and the rows' maxima in place of scales. In float16, whatever x is.
// A row of zeros stays zeros.
QuantizedRows QuantizeRows(const at::Tensor& x) {
  const at::Tensor half = x.to(at::kHalf);
  at::Tensor maxima = half.abs().amax(1).to(at::kFloat);
  // Two roundings, as `127.0 / maxima` has in torch's Python. Of a row of zeros: 0 * 0.
  const at::Tensor scale = at::reciprocal(maxima).mul_(127.0).masked_fill_(maxima == 0, 0);
  at::Tensor scaled = half * scale.unsqueeze(1);  // float32
  return {.values = scaled.round_().to(at::kChar), .scales = std::move(maxima)};
}

class BnbInt8Format : public WeightFormat {
 public:
  explicit BnbInt8Format(double threshold) : threshold_(threshold) {}
  const std::string& name() const override { return name_; }

  std::vector<PartSpec> Parts(at::IntArrayRef shape) const override {
    TORCH_CHECK(shape.size() == 2, name_, " holds matrices, got shape ", shape);
    return {{at::kChar, shape.vec()}, {at::kFloat, {shape[0]}}};
  }

  std::vector<at::Tensor> Encode(const at::Tensor& weight) const override {
    TORCH_CHECK(weight.dim() == 2, name_, " holds matrices, got ", weight.sizes());
    QuantizedRows rows = QuantizeInChunks(weight, at::kChar, QuantizeRows);
    return {std::move(rows.values), std::move(rows.scales)};
  }

  at::Tensor Decode(const std::vector<at::Tensor>& parts, at::IntArrayRef shape,
                    c10::ScalarType dtype) const override {
    CheckParts(parts, shape);
    return DecodeRows(parts[0], parts[1], kInverse127, dtype);
  }

  at::Tensor Linear(const at::Tensor& x, const std::vector<at::Tensor>& parts,
                    at::IntArrayRef shape, const at::Tensor& bias) const override {
    CheckParts(parts, shape);
    const at::Tensor& weight = parts[0];
    const at::Tensor& weight_maxima = parts[1];
    const at::Tensor tokens = x.reshape({-1, shape[1]});
    std::vector<int64_t> out_shape = x.sizes().vec();
    out_shape.back() = shape[0];
    at::Tensor out = at::empty({tokens.size(0), shape[0]}, x.options());
    if (out.numel() == 0) return out.view(out_shape);

    const at::Tensor columns = OutlierColumns(tokens);
    at::Tensor outlier_weight;  // [outliers, out]
    if (columns.numel() > 0) {
      outlier_weight = DecodeRows(at::index_select(weight, 1, columns), weight_maxima, kInverse127,
                                  x.scalar_type())
                           .t();
    }
    for (int64_t begin = 0; begin < tokens.size(0); begin += kInt8RowsPerChunk) {
      const int64_t count = std::min(kInt8RowsPerChunk, tokens.size(0) - begin);
      const at::Tensor some = tokens.narrow(0, begin, count);
      at::Tensor half = some.to(at::kHalf);
      if (columns.numel() > 0) half = half.masked_fill(half.abs() >= threshold_, 0);
      const QuantizedRows quantized = QuantizeRows(half);
      // Magnitudes below the threshold in an outlier's column count for the row's maximum, though
      // the whole column is left out of the product.
      if (columns.numel() > 0) quantized.values.index_fill_(1, columns, 0);
      at::Tensor sum = quantized.scales.unsqueeze(1) * weight_maxima;
      sum.mul_(Int8MatMul(quantized.values, weight)).mul_(kInverse127Squared);
      if (bias.defined()) sum.add_(bias);
      at::Tensor to = out.narrow(0, begin, count);
      to.copy_(sum);
      if (columns.numel() > 0) to.addmm_(at::index_select(some, 1, columns), outlier_weight);
    }
    return out.view(out_shape);
  }

 private:
  // Of all rows together: int64, ascending; empty without a threshold.
  at::Tensor OutlierColumns(const at::Tensor& tokens) const {
    at::Tensor found;  // bool [columns]
    if (threshold_ > 0) {
      for (int64_t begin = 0; begin < tokens.size(0); begin += kInt8RowsPerChunk) {
        const int64_t count = std::min(kInt8RowsPerChunk, tokens.size(0) - begin);
        const at::Tensor half = tokens.narrow(0, begin, count).to(at::kHalf);
        const at::Tensor here = (half.abs() >= threshold_).any(0);
        found = found.defined() ? found | here : here;
      }
    }
    return found.defined() ? found.nonzero().view(-1) : at::empty({0}, at::kLong);
  }

  void CheckParts(const std::vector<at::Tensor>& parts, at::IntArrayRef shape) const {
    TORCH_CHECK(parts.size() == 2 && parts[0].sizes() == shape && parts[1].numel() == shape[0],
                name_, ": parts do not hold a weight of ", shape);
  }

  std::string name_ = "int8";
  double threshold_;
};

}  // namespace

std::shared_ptr<const WeightFormat> MakeBnbInt8(double threshold) {
  return std::make_shared<BnbInt8Format>(threshold);
}

}  // namespace kino::engine
