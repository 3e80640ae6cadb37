// What weights need as a plan holds them, of made-up ones.
#include "engine/describe/weight_needs.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace kino::engine {
namespace {

// Matrices and vectors of float32, all in one part and group.
class WeightNeedsTest : public ::testing::Test {
 protected:
  void Add(const std::string& name, const std::vector<int64_t>& shape) {
    int64_t elements = 1;
    for (const int64_t extent : shape) elements *= extent;
    net_.weights.push_back(
        {.name = name, .shape = shape, .bytes = 4 * elements, .elements = elements});
    places_.push_back(
        {.name = name, .part = "part", .group = "group", .may_quantize = shape.size() == 2});
  }
  WeightNeeds Needs(const WeightPlan& plan) const {
    ComponentWeights weights = {.component = &net_, .weights = {}};
    for (size_t i = 0; i < places_.size(); ++i)
      weights.weights.push_back({&net_.weights[i], &places_[i]});
    return NeedsOf(weights, plan, /*on_gpu=*/true);
  }

  ComponentDescription net_ = {.name = "net", .library = "", .class_name = ""};
  std::vector<WeightPlace> places_;
};

TEST_F(WeightNeedsTest, EachWeightOfASlotIsAligned) {
  Add("a.bias", {10});
  Add("a.weight", {100});
  Add("b.weight", {1000});
  WeightPlan plan;
  plan.residency = *ResidencyPolicy::Parse("leaf");
  const WeightNeeds needs = Needs(plan);
  EXPECT_EQ(needs.units, 2);
  EXPECT_EQ(needs.slots, 2);
  // The largest first: 400 bytes, at 512 the other 40.
  EXPECT_EQ(needs.slot_bytes, 4000 + 552);
  const PartNeeds& part = needs.PartOf("part");
  EXPECT_EQ(part.bytes, 4000 + 552);
  EXPECT_EQ(part.first_bytes, (4000 + 552) / 2);
}

TEST_F(WeightNeedsTest, APartOfALayersNameKeepsItFromQuantizing) {
  Add("blocks.0.proj_out.weight", {64, 64});
  Add("blocks.0.to_q.weight", {64, 64});
  WeightPlan plan;
  plan.quantize = QuantScheme::kInt8Wo;
  const int64_t quantized = QuantizedBytes(plan.quantize, 64, 64, DType::kF32);
  for (const auto& [skip, bytes] : std::map<std::string, int64_t>{
           {"proj", 4 * 64 * 64 + quantized}, {"k_proj", 2 * quantized}, {"0.", 8 * 64 * 64}}) {
    plan.quantize_skip = {skip};
    EXPECT_EQ(Needs(plan).resident_bytes, bytes) << skip;
  }
}

}  // namespace
}  // namespace kino::engine
