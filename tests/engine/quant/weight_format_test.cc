#include "engine/quant/weight_format.h"
#include "engine/ops/linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

namespace kino::engine {
namespace {

// Holds the weight halved, so that a layer that forgot to decode is seen.
class HalvedFormat : public WeightFormat {
 public:
  const std::string& name() const override { return name_; }
  std::vector<PartSpec> Parts(at::IntArrayRef shape) const override {
    return {{at::kFloat, shape.vec()}};
  }
  std::vector<at::Tensor> Encode(const at::Tensor& weight) const override {
    return {weight.to(at::kFloat) * 0.5};
  }
  at::Tensor Decode(const std::vector<at::Tensor>& parts, at::IntArrayRef shape,
                    c10::ScalarType dtype) const override {
    return (parts[0] * 2.0).view(shape).to(dtype);
  }

 private:
  std::string name_ = "halved";
};

TEST(WeightFormatTest, LinearComputesWithTheDecodedWeightInTheInputsType) {
  const HalvedFormat format;
  for (const c10::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor weight = at::randn({3, 5}).to(dtype);
    const at::Tensor bias = at::randn({3}).to(dtype);
    const at::Tensor x = at::randn({2, 4, 5}).to(dtype);
    const auto parts = format.Encode(weight);
    EXPECT_TRUE(at::equal(format.Linear(x, parts, {3, 5}, bias), Linear(x, weight, bias)));
    EXPECT_TRUE(at::equal(format.Linear(x, parts, {3, 5}, {}), Linear(x, weight, {})));
  }
}

}  // namespace
}  // namespace kino::engine
