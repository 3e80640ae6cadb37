// Random weights of given names, for layers to be looked up among.
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/core/checkpoint.h"
#include "engine/memory/residency.h"
#include "engine/weights/weight_set.h"
#include "tests/support/fixture_folder.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace kino::engine {

// Its values repeat with KINO_TEST_SEED.
inline at::Tensor Random(at::IntArrayRef shape, uint64_t stream) {
  static const uint64_t seed = TestSeed();
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>((seed << 16) + stream),
                   at::TensorOptions());
}

class LayerWeights {
 public:
  explicit LayerWeights(const std::map<std::string, std::vector<int64_t>>& shapes) {
    std::vector<testing::FloatTensor> tensors;
    for (const auto& [name, shape] : shapes) {
      const at::Tensor values = Random(shape, 1000 + tensors.size()).mul_(0.3);
      values_.emplace(name, values);
      const float* data = values.const_data_ptr<float>();
      tensors.push_back({name, shape, {data, data + values.numel()}});
    }
    folder_.Write("model.safetensors", testing::SafetensorsOf(tensors));
  }

  // The layer that `make` makes of the scope of all weights; they are there from then on.
  template <typename Make>
  auto Load(Make make) {
    residency_.reset();  // it is of the set before
    set_ = std::make_unique<WeightSet>(*Checkpoint::Open(folder_.path(), ""), at::kFloat, at::kCPU);
    residency_ = std::make_unique<Residency>(*set_);
    auto layer = make(WeightScope(*set_, set_->AddGroup("all")));
    EXPECT_TRUE(set_->Finish().ok()) << set_->Finish();
    residency_->Configure({});
    return layer;
  }
  const at::Tensor& Get(const std::string& name) const { return values_.at(name); }

 private:
  testing::TempDir folder_;
  std::map<std::string, at::Tensor> values_;
  std::unique_ptr<WeightSet> set_;
  std::unique_ptr<Residency> residency_;
};

inline double MaxError(const at::Tensor& got, const at::Tensor& expected) {
  EXPECT_EQ(got.sizes(), expected.sizes());
  return got.sizes() == expected.sizes() ? (got - expected).abs().max().item<double>() : 1e30;
}

}  // namespace kino::engine
