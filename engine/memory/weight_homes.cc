#include "engine/memory/weight_homes.h"

#include <ATen/ops/clone.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>
#include <unordered_set>

#include "engine/core/status_bridge.h"
#include "engine/core/torch_types.h"
#include "engine/memory/spill_file.h"
#include "engine/quant/formats.h"

namespace kino::engine {
namespace {

constexpr int64_t kAlignment = 256;
// Of a conversion that goes through a third dtype.
constexpr int64_t kElementsAtOnce = int64_t{1} << 20;

int64_t Bytes(const PartSpec& part) {
  int64_t bytes = static_cast<int64_t>(c10::elementSize(part.dtype));
  for (const int64_t extent : part.shape) bytes *= extent;
  return bytes;
}

// to = from, rounded to the compute dtype on the way, as a model loaded in that dtype and cast
// afterwards has it.
void Convert(const at::Tensor& from, c10::ScalarType compute, const at::Tensor& to) {
  if (from.scalar_type() == compute || to.scalar_type() == compute) {
    to.copy_(from);
    return;
  }
  const at::Tensor source = from.flatten(), target = to.flatten();
  for (int64_t start = 0; start < source.numel(); start += kElementsAtOnce) {
    const int64_t count = std::min(kElementsAtOnce, source.numel() - start);
    target.narrow(0, start, count).copy_(source.narrow(0, start, count).to(compute));
  }
}

}  // namespace

SlabLayout SlabLayout::Of(const std::vector<Weight*>& weights) {
  SlabLayout layout;
  for (Weight* weight : weights) {
    for (size_t part = 0; part < weight->parts.size(); ++part)
      layout.places.push_back({weight, part, 0});
  }
  const auto bytes = [](const Place& place) { return Bytes(place.weight->parts[place.part]); };
  std::stable_sort(layout.places.begin(), layout.places.end(),
                   [&](const Place& a, const Place& b) { return bytes(a) > bytes(b); });
  int64_t next = 0;
  for (Place& place : layout.places) {
    place.offset = next;
    layout.bytes = next + bytes(place);
    next = (layout.bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  return layout;
}

at::Tensor PartView(const at::Tensor& slab, const SlabLayout::Place& place) {
  const PartSpec& part = place.weight->parts[place.part];
  return slab.narrow(0, place.offset, Bytes(part)).view(part.dtype).view(part.shape);
}

void WeightHomes::ChooseForms(const WeightPlan& plan) {
  Forget();
  std::unordered_map<c10::ScalarType, std::shared_ptr<const WeightFormat>> formats;
  std::unordered_set<std::string_view> quantized;  // layers
  for (const std::unique_ptr<Weight>& owned : set_.weights()) {
    Weight& weight = *owned;
    weight.format = nullptr;
    if (weight.file_format != nullptr && weight.is_matrix) {
      weight.format = weight.file_format;
    } else if (plan.quantize != QuantScheme::kNone && set_.MayQuantize(weight) &&
               CanQuantize(plan.quantize, weight.shape[0], weight.shape[1]) &&
               std::none_of(plan.quantize_skip.begin(), plan.quantize_skip.end(),
                            [&weight](const std::string& skip) {
                              return weight.leaf().find(skip) != std::string_view::npos;
                            })) {
      std::shared_ptr<const WeightFormat>& format = formats[weight.dtype];
      if (format == nullptr)
        format = MakeWeightFormat(plan.quantize, plan.int8_threshold, weight.dtype);
      weight.format = format;
    }
    if (weight.format != nullptr) quantized.insert(weight.leaf());
  }
  for (const std::unique_ptr<Weight>& weight : set_.weights()) {
    // Casting is of whole layers: a quantized one keeps its bias.
    const bool is_cast =
        plan.storage_dtype && set_.MayCast(*weight) && !quantized.contains(weight->leaf());
    weight->stored_dtype = is_cast ? ToTorch(*plan.storage_dtype) : weight->dtype;
    weight->parts = weight->format != nullptr
                        ? weight->format->Parts(weight->shape)
                        : std::vector<PartSpec>{{weight->stored_dtype, weight->shape}};
  }
}

at::Tensor WeightHomes::Raw(const Weight& weight) const {
  if (weight.file_format != nullptr) {
    return weight.file_format->Decode(weight.file_parts, weight.shape, weight.dtype);
  }
  // from_blob takes a writable pointer; the pages are mapped read-only, so a write would fault
  // rather than pass.
  auto* data = const_cast<std::byte*>(weight.entry->data);
  const c10::ScalarType dtype = ToTorch(weight.entry->dtype);
  if (reinterpret_cast<uintptr_t>(data) % c10::elementSize(dtype) == 0) {
    return at::from_blob(data, weight.shape, at::TensorOptions().dtype(dtype));
  }
  // The format lets a file's header have any length, so its tensors may lie anywhere: such a one is
  // copied.
  const at::Tensor bytes =
      at::from_blob(data, {weight.entry->bytes}, at::TensorOptions().dtype(at::kByte));
  return bytes.clone().view(dtype).view(weight.shape);
}

bool WeightHomes::IsEncoded(const Weight& weight) const {
  if (weight.format != nullptr) return weight.format != weight.file_format;
  return weight.file_format != nullptr;  // decoded once
}

bool WeightHomes::IsMapped(const Weight& weight) const {
  if (parts_.contains(&weight)) return parts_are_mapped_;
  if (weight.format != nullptr) return weight.format == weight.file_format;
  return weight.file_format == nullptr && ToTorch(weight.entry->dtype) == weight.stored_dtype &&
         reinterpret_cast<uintptr_t>(weight.entry->data) % c10::elementSize(weight.stored_dtype) ==
             0;
}

std::vector<std::pair<const void*, int64_t>> WeightHomes::FileRanges(const Weight& weight) const {
  std::vector<std::pair<const void*, int64_t>> ranges;
  const auto it = parts_.find(&weight);
  if (it != parts_.end()) {
    if (!parts_are_mapped_) return ranges;
    for (const at::Tensor& part : it->second)
      ranges.emplace_back(part.const_data_ptr(), static_cast<int64_t>(part.nbytes()));
  } else if (weight.entry != nullptr) {
    ranges.emplace_back(weight.entry->data, weight.entry->bytes);
  }
  return ranges;
}

std::vector<at::Tensor> WeightHomes::Parts(const Weight& weight) const {
  if (const auto it = parts_.find(&weight); it != parts_.end()) return it->second;
  if (weight.format != nullptr) {
    if (weight.format == weight.file_format) return weight.file_parts;
    return weight.format->Encode(Raw(weight).to(weight.dtype));
  }
  return {Raw(weight).to(weight.dtype).to(weight.stored_dtype)};
}

void WeightHomes::Fill(const SlabLayout::Place& place, const at::Tensor& host) const {
  const Weight& weight = *place.weight;
  const PartSpec& part = weight.parts[place.part];
  const at::Tensor target = host.view(part.dtype).view(part.shape);
  if (parts_.contains(&weight) || IsEncoded(weight) || weight.format != nullptr) {
    target.copy_(Parts(weight)[place.part]);
  } else {
    Convert(Raw(weight), weight.dtype, target);
  }
}

void WeightHomes::MoveToFile(const RunContext& context) {
  if (parts_are_mapped_) return;
  std::optional<SpillFile> spill;  // none for what needs none
  std::vector<std::pair<const Weight*, size_t>> spilled;
  for (const std::unique_ptr<Weight>& weight : set_.weights()) {
    if (!IsEncoded(*weight)) continue;
    ThrowIfError(context.Advance());
    const std::vector<at::Tensor> parts = Parts(*weight);
    if (!spill) spill.emplace();
    for (const at::Tensor& part : parts) spill->Append(part.contiguous());
    spilled.emplace_back(weight.get(), parts.size());
  }
  const std::vector<at::Tensor> mapped = spill ? spill->Map() : std::vector<at::Tensor>();
  parts_.clear();
  parts_are_mapped_ = true;
  auto next = mapped.begin();
  for (const auto& [weight, count] : spilled) {
    parts_[weight] = std::vector<at::Tensor>(next, next + static_cast<ptrdiff_t>(count));
    next += static_cast<ptrdiff_t>(count);
  }
}

void WeightHomes::MoveToSlab(const SlabLayout& layout, const at::Tensor& slab) {
  std::unordered_map<const Weight*, std::vector<at::Tensor>> moved;
  for (const SlabLayout::Place& place : layout.places) {
    std::vector<at::Tensor>& parts = moved[place.weight];
    // Encoding makes all parts at once.
    if (parts.empty()) {
      parts.resize(place.weight->parts.size());
      if (IsEncoded(*place.weight) && !parts_.contains(place.weight))
        parts_[place.weight] = Parts(*place.weight);
    }
    const at::Tensor view = PartView(slab, place);
    Fill(place, view.flatten().view(at::kByte));
    parts[place.part] = view;
  }
  for (auto& [weight, parts] : moved) parts_[weight] = std::move(parts);
  parts_are_mapped_ = false;
}

void WeightHomes::Forget() {
  parts_.clear();
  parts_are_mapped_ = false;
}

}  // namespace kino::engine
