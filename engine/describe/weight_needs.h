// What the weights of one component take under a plan: on the device, at home, and on their way
// between the two. The same arithmetic as memory/residency, on shapes. Values only; no torch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/describe/describe.h"
#include "engine/describe/profile.h"
#include "engine/describe/weight_plan.h"

namespace kino::engine {

struct PlacedWeight {
  const WeightTensor* weight = nullptr;
  const WeightPlace* place = nullptr;
};

// The weights a component's layers read.
struct ComponentWeights {
  const ComponentDescription* component = nullptr;
  std::vector<PlacedWeight> weights;
};

// Of what one phase goes through.
struct PartNeeds {
  std::string part;
  int64_t units = 0;         // that are copied to the device one by one
  int64_t bytes = 0;         // of all of them
  int64_t first_bytes = 0;   // of one on average: what nothing hides
  int64_t decode_bytes = 0;  // the largest weight in the dtype of computation, if stored otherwise
  // For each row of activations, where matrices are multiplied as they are stored: its quantized
  // form, what that is made of, and the product before it is scaled.
  int64_t row_bytes = 0;
  // Of one pass: what is decoded, as stored and as computed with.
  int64_t decoded_stored_bytes = 0;
  int64_t decoded_bytes = 0;
};

struct WeightNeeds {
  const ComponentDescription* component = nullptr;
  WeightPlan plan;
  bool is_offloaded = false;
  int64_t resident_bytes = 0;  // on the device in every stage
  int64_t home_bytes = 0;      // host memory, in every stage
  int64_t slot_bytes = 0;      // on the device in the stages that use the component
  int64_t slots = 0;
  int64_t units = 0;
  std::vector<PartNeeds> parts;

  // Of no weights when there is no such part.
  const PartNeeds& PartOf(const std::string& part) const;
};

WeightNeeds NeedsOf(const ComponentWeights& weights, const WeightPlan& plan, bool on_gpu);

}  // namespace kino::engine
