#include "engine/describe/weight_needs.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

namespace kino::engine {
namespace {

constexpr int64_t kAlignment = 256;  // of the weights in a slot

std::string LayerOf(const std::string& name) { return name.substr(0, name.rfind('.')); }

// Of the wider side of a matrix that is multiplied undecoded, for each row of activations; as
// measured. 0: it is decoded.
int64_t RowBytes(QuantScheme scheme) {
  switch (scheme) {
    case QuantScheme::kInt8:
      return 12;
    case QuantScheme::kInt8Dyn:
    case QuantScheme::kFp8Dyn:
      return 10;
    default:
      return 0;
  }
}

// How one weight is held.
struct Held {
  int64_t bytes = 0;
  int64_t computed_bytes = 0;
  bool is_decoded = false;  // to be computed with
  bool is_in_file = false;  // as it is held
};

bool IsQuantized(const PlacedWeight& placed, const WeightPlan& plan) {
  const WeightTensor& weight = *placed.weight;
  if (weight.is_quantized) return true;
  if (!placed.place->may_quantize) return false;
  const std::string layer = LayerOf(weight.name);
  return plan.quantize != QuantScheme::kNone && weight.shape.size() == 2 &&
         CanQuantize(plan.quantize, weight.shape[0], weight.shape[1]) &&
         std::none_of(
             plan.quantize_skip.begin(), plan.quantize_skip.end(),
             [&layer](const std::string& skip) { return layer.find(skip) != std::string::npos; });
}

// quantized: the layers that are.
Held HoldingOf(const PlacedWeight& placed, const WeightPlan& plan,
               const std::set<std::string>& quantized) {
  const WeightTensor& weight = *placed.weight;
  const DType computed = placed.place->dtype;
  Held held;
  held.computed_bytes = weight.elements * DTypeSize(computed);
  if (IsQuantized(placed, plan)) {
    held.bytes = weight.is_quantized
                     ? weight.bytes
                     : QuantizedBytes(plan.quantize, weight.shape[0], weight.shape[1], computed);
    held.is_decoded = true;
    held.is_in_file = weight.is_quantized;
  } else {
    const bool is_cast = plan.storage_dtype && placed.place->may_cast &&
                         quantized.find(LayerOf(weight.name)) == quantized.end();
    const DType stored = is_cast ? *plan.storage_dtype : computed;
    held.bytes = weight.elements * DTypeSize(stored);
    held.is_decoded = stored != computed;
    held.is_in_file = !weight.is_quantized && weight.dtype == stored;
  }
  return held;
}

// Weights that are copied together.
struct Unit {
  std::string part;
  std::vector<int64_t> weights;  // bytes of each
  // Largest first, each at a multiple of the alignment.
  int64_t SlabBytes() {
    std::sort(weights.rbegin(), weights.rend());
    int64_t end = 0, next = 0;
    for (const int64_t bytes : weights) {
      end = next + bytes;
      next = (end + kAlignment - 1) / kAlignment * kAlignment;
    }
    return end;
  }
};

std::string UnitKey(const PlacedWeight& placed, const ResidencyPolicy& policy) {
  const WeightPlace& place = *placed.place;
  switch (policy.unit) {
    case ResidencyPolicy::Unit::kResident:
    case ResidencyPolicy::Unit::kComponent:
      return place.part;
    case ResidencyPolicy::Unit::kBlocks:
      return place.block < 0
                 ? place.group
                 : absl::StrCat(place.stack, "|", place.block / policy.blocks_per_group);
    case ResidencyPolicy::Unit::kLeaf:
      return absl::StrCat(place.group, "|", LayerOf(placed.weight->name));
  }
  return place.part;
}

}  // namespace

const PartNeeds& WeightNeeds::PartOf(const std::string& part) const {
  static const PartNeeds kNone;
  const auto it = std::find_if(parts.begin(), parts.end(),
                               [&part](const PartNeeds& each) { return each.part == part; });
  return it == parts.end() ? kNone : *it;
}

WeightNeeds NeedsOf(const ComponentWeights& weights, const WeightPlan& plan, bool on_gpu) {
  WeightNeeds needs{.component = weights.component, .plan = plan, .parts = {}};
  needs.is_offloaded = plan.residency.unit != ResidencyPolicy::Unit::kResident;
  std::map<std::string, PartNeeds> parts;
  std::map<std::string, Unit> units;
  std::set<std::string> quantized;
  for (const PlacedWeight& placed : weights.weights) {
    if (IsQuantized(placed, plan)) quantized.insert(LayerOf(placed.weight->name));
  }
  for (const PlacedWeight& placed : weights.weights) {
    const Held held = HoldingOf(placed, plan, quantized);
    PartNeeds& part = parts[placed.place->part];
    part.part = placed.place->part;
    if (held.is_decoded && !placed.weight->is_quantized && IsQuantized(placed, plan) &&
        RowBytes(plan.quantize) > 0) {
      const std::vector<int64_t>& shape = placed.weight->shape;
      part.row_bytes =
          std::max(part.row_bytes, std::max(shape[0], shape[1]) * RowBytes(plan.quantize));
    } else if (held.is_decoded) {
      part.decode_bytes = std::max(part.decode_bytes, held.computed_bytes);
      part.decoded_stored_bytes += held.bytes;
      part.decoded_bytes += held.computed_bytes;
    }
    // On the CPU a resident weight that lies in the mapped file as it is used is used there.
    const bool is_mapped = !on_gpu && plan.home == WeightsHome::kFile && held.is_in_file;
    if (!needs.is_offloaded) {
      if (!is_mapped) needs.resident_bytes += held.bytes;
      continue;
    }
    Unit& unit = units[UnitKey(placed, plan.residency)];
    unit.part = placed.place->part;
    unit.weights.push_back(held.bytes);
  }
  std::vector<int64_t> sizes;
  for (auto& [key, unit] : units) {
    sizes.push_back(unit.SlabBytes());
    PartNeeds& part = parts[unit.part];
    ++part.units;
    part.bytes += sizes.back();
  }
  for (auto& [name, part] : parts) {
    if (part.units > 0) part.first_bytes = part.bytes / part.units;
    needs.parts.push_back(std::move(part));
  }
  needs.units = static_cast<int64_t>(sizes.size());
  if (needs.is_offloaded) {
    // The largest units decide how large the slots are.
    std::sort(sizes.rbegin(), sizes.rend());
    const int64_t slots =
        plan.residency.unit == ResidencyPolicy::Unit::kComponent ? 1 : plan.residency.prefetch + 1;
    needs.slots = std::min(slots, needs.units);
    for (int64_t i = 0; i < needs.slots; ++i) needs.slot_bytes += sizes[static_cast<size_t>(i)];
    if (plan.home != WeightsHome::kFile) {
      for (const int64_t size : sizes) needs.home_bytes += size;
    }
  }
  return needs;
}

}  // namespace kino::engine
