#include "engine/quant/weight_format.h"

#include "engine/ops/linear.h"

namespace kino::engine {

at::Tensor WeightFormat::Linear(const at::Tensor& x, const std::vector<at::Tensor>& parts,
                                at::IntArrayRef shape, const at::Tensor& bias) const {
  return engine::Linear(x, Decode(parts, shape, x.scalar_type()), bias);
}

}  // namespace kino::engine
