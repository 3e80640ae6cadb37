// A form in which a weight is stored: the tensors that hold it, how they are made from a plain one,
// and how they are computed with. Formats are immutable and thread-safe; they hold no weight.
//
// The composed functions on torch's operators are the specification; a format may add kernels.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

namespace kino::engine {

// One of the tensors that hold a weight.
struct PartSpec {
  c10::ScalarType dtype;
  std::vector<int64_t> shape;
};

class WeightFormat {
 public:
  virtual ~WeightFormat() = default;
  // As --quantize or a checkpoint spells it ("nf4", "Q4_K").
  virtual const std::string& name() const = 0;
  // What holds a weight of `shape` ([out, in] for linear layers).
  virtual std::vector<PartSpec> Parts(at::IntArrayRef shape) const = 0;
  // weight: in the compute dtype, on any device -> its parts, on the same device. Formats that are
  // only read throw StatusError UNIMPLEMENTED.
  virtual std::vector<at::Tensor> Encode(const at::Tensor& weight) const = 0;
  // -> [shape] in `dtype`.
  virtual at::Tensor Decode(const std::vector<at::Tensor>& parts, at::IntArrayRef shape,
                            c10::ScalarType dtype) const = 0;
  // x W^T + b. x: [..., in]; bias: [out] or undefined -> [..., out] in x's dtype. Here: a linear
  // layer with the decoded weight.
  virtual at::Tensor Linear(const at::Tensor& x, const std::vector<at::Tensor>& parts,
                            at::IntArrayRef shape, const at::Tensor& bias) const;
};

}  // namespace kino::engine
