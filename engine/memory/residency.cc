#include "engine/memory/residency.h"

#include <ATen/ops/empty.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/memory_counter.h"
#include "engine/core/status_bridge.h"

namespace kino::engine {
namespace {

// Read ahead for a stage to come.
constexpr int64_t kAnnouncedBytes = int64_t{2} << 30;
constexpr int kNaNByte = 0xFF;       // all bits set: NaN in every floating-point dtype
constexpr int64_t kAlignment = 256;  // of a unit in a buffer, as of a weight in its unit

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

void Advise(const void* data, int64_t bytes) {
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes);
  // A hint: nothing is lost if the system does not take it.
  (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_WILLNEED);
}

}  // namespace

bool Residency::poison_released_ = false;

// A place on the device that units take turns in: a buffer of its own, or one end of a buffer.
struct Residency::Slot {
  int64_t bytes = 0;  // of the largest unit that fits
  at::Tensor buffer;
  bool at_end = false;            // units end where the buffer ends, or else begin where it begins
  Unit* unit = nullptr;           // that is there, or on its way
  CopyEngine::Ticket ticket = 0;  // not yet waited for
  std::shared_ptr<const Fence> last_use;
  int64_t used = 0;      // when; larger is later
  int64_t released = 0;  // the same
  // Where a unit of so many bytes lies.
  at::Tensor Place(int64_t unit_bytes) const {
    return buffer.narrow(0, at_end ? buffer.numel() - Aligned(unit_bytes) : 0, unit_bytes);
  }
};

class Residency::Unit final : public WeightUnit {
 public:
  Unit(Residency* owner, std::string unit_name, std::vector<Weight*> unit_weights)
      : name(std::move(unit_name)),
        weights(std::move(unit_weights)),
        layout(SlabLayout::Of(weights)),
        owner_(owner) {
    for (const SlabLayout::Place& place : layout.places) {
      pieces.push_back(
          {.offset = place.offset,
           .bytes = static_cast<int64_t>(PartBytes(place)),
           .fill = [this, place](const at::Tensor& host) { owner_->homes_.Fill(place, host); }});
    }
  }
  void Pin() override {
    if (pins++ > 0) return;
    try {
      owner_->Bring(*this);
    } catch (...) {
      --pins;
      throw;
    }
  }
  void Unpin() noexcept override {
    if (--pins > 0) return;
    try {
      owner_->Release(*this);
    } catch (const std::exception&) {
      // The device failed. Nothing tells when the unit's slot is free, so no other may be brought.
      owner_->unfenced_ = std::current_exception();
    }
  }

  const std::string name;
  const std::vector<Weight*> weights;
  const SlabLayout layout;
  std::vector<SlabPiece> pieces;
  at::Tensor slab;       // host memory, if that is its home
  Unit* next = nullptr;  // what followed it the last time
  Slot* slot = nullptr;
  int pins = 0;
  // Views of the weights in each slot it has been in.
  std::map<const Slot*, std::vector<at::Tensor>> views;

 private:
  static int64_t PartBytes(const SlabLayout::Place& place) {
    const PartSpec& part = place.weight->parts[place.part];
    int64_t bytes = static_cast<int64_t>(c10::elementSize(part.dtype));
    for (const int64_t extent : part.shape) bytes *= extent;
    return bytes;
  }
  Residency* owner_;
};

Residency::Residency(WeightSet& set) : set_(set), homes_(set) {}

Residency::~Residency() { Unload(); }

void Residency::Configure(const WeightPlan& plan, const RunContext& context) {
  if (is_configured_ && plan == plan_) return;
  const Transport* const transport = copies_ ? &copies_->transport() : transport_.get();
  if (plan.home == WeightsHome::kPinned && !set_.device().is_cuda() &&
      (transport == nullptr || !transport->needs_staging())) {
    throw StatusError(absl::FailedPreconditionError(
        absl::StrCat("weights_home 'pinned' needs a GPU; this device is ", set_.device().str())));
  }
  const bool is_new_form = !has_forms_ || plan.FormatKey() != plan_.FormatKey();
  Unload();
  is_configured_ = false;
  has_forms_ = has_forms_ && !is_new_form;
  if (is_new_form) homes_.ChooseForms(plan);
  has_forms_ = true;
  plan_ = plan;
  try {
    if (plan.residency.unit == ResidencyPolicy::Unit::kResident) {
      MakeResident(context);
    } else {
      MakeUnits();
      MoveHomes(context);
    }
  } catch (...) {
    Unload();
    homes_.Forget();
    throw;
  }
  is_configured_ = true;
}

void Residency::MakeWay(const WeightPlan& plan) noexcept {
  if (!is_configured_ || plan == plan_) return;
  Unload();
  is_configured_ = false;
  // Homes in a form that stays are of use to the plan that comes.
  if (plan.FormatKey() != plan_.FormatKey()) homes_.Forget();
}

void Residency::MakeUnit(std::string name, std::vector<Weight*> weights) {
  if (weights.empty()) return;
  units_.push_back(std::make_unique<Unit>(this, std::move(name), std::move(weights)));
  for (Weight* weight : units_.back()->weights) weight->unit = units_.back().get();
}

void Residency::MakeUnits() {
  using Kind = ResidencyPolicy::Unit;
  const Kind kind = plan_.residency.unit;
  // Keys in the order they come; every key is a unit.
  std::vector<std::pair<std::string, std::vector<Weight*>>> cut;
  std::map<std::string, size_t> places;
  const auto add = [&](const std::string& key, Weight* weight) {
    const auto [it, is_new] = places.emplace(key, cut.size());
    if (is_new) cut.push_back({key, {}});
    cut[it->second].second.push_back(weight);
  };
  for (const std::unique_ptr<WeightGroup>& group : set_.groups()) {
    std::string key = group->name();
    if (kind == Kind::kBlocks) {
      for (const std::vector<WeightGroup*>& stack : stacks_) {
        const auto found = std::find(stack.begin(), stack.end(), group.get());
        if (found == stack.end()) continue;
        const auto run = (found - stack.begin()) / plan_.residency.blocks_per_group;
        key = stack[static_cast<size_t>(run * plan_.residency.blocks_per_group)]->name();
      }
    }
    for (Weight* weight : group->weights()) {
      if (kind == Kind::kComponent) key = group->part();
      add(kind == Kind::kLeaf ? absl::StrCat(group->name(), "|", std::string(weight->leaf())) : key,
          weight);
    }
  }
  for (auto& [key, weights] : cut) MakeUnit(key, std::move(weights));
  for (size_t i = 0; i < units_.size(); ++i)
    units_[i]->next = units_[(i + 1) % units_.size()].get();
  for (const std::unique_ptr<WeightGroup>& group : set_.groups()) {
    const std::vector<Weight*>& weights = group->weights();
    const bool is_whole =
        !weights.empty() && std::all_of(weights.begin(), weights.end(), [&](const Weight* weight) {
          return weight->unit == weights.front()->unit;
        });
    group->set_unit(is_whole ? weights.front()->unit : nullptr);
  }
  if (copies_ == nullptr) {
    if (staging_ == nullptr) staging_ = std::make_shared<StagingSlabs>();
    copies_ = std::make_unique<CopyEngine>(
        transport_ ? std::move(transport_) : Transport::Create(set_.device()), staging_);
  }
}

void Residency::MoveHomes(const RunContext& context) {
  if (plan_.home == WeightsHome::kFile) {
    homes_.MoveToFile(context);
    return;
  }
  for (const std::unique_ptr<Unit>& unit : units_) {
    ThrowIfError(context.Advance());
    unit->slab = plan_.home == WeightsHome::kPinned
                     ? copies_->transport().AllocateHost(unit->layout.bytes)
                     : at::empty({unit->layout.bytes}, at::TensorOptions().dtype(at::kByte));
    homes_.MoveToSlab(unit->layout, unit->slab);
    // Memory a device cannot copy from without waiting is staged like a file.
    if (plan_.home == WeightsHome::kPageable && copies_->transport().needs_staging())
      unit->slab = at::Tensor();
  }
}

void Residency::MakeResident(const RunContext& context) {
  for (const std::unique_ptr<Weight>& weight : set_.weights()) {
    ThrowIfError(context.Advance());
    const bool is_in_file =
        set_.device().is_cpu() && plan_.home == WeightsHome::kFile && homes_.IsMapped(*weight);
    for (const at::Tensor& part : homes_.Parts(*weight)) {
      // On the CPU a weight that lies in the file as it is used is used there; else this is its one
      // copy.
      at::Tensor value = part.to(set_.device());
      if (!is_in_file) {
        if (homes_.IsMapped(*weight) && value.data_ptr() == part.data_ptr()) value = part.clone();
        resident_bytes_ += static_cast<int64_t>(value.nbytes());
        CountDeviceWeights(static_cast<int64_t>(value.nbytes()));
      }
      weight->value.push_back(std::move(value));
    }
  }
  homes_.Forget();
}

void Residency::Unload() noexcept {
  Leave();
  for (const std::unique_ptr<Weight>& weight : set_.weights()) {
    weight->value.clear();
    weight->unit = nullptr;
  }
  for (const std::unique_ptr<WeightGroup>& group : set_.groups()) group->set_unit(nullptr);
  CountDeviceWeights(-std::exchange(resident_bytes_, 0));
  units_.clear();
}

void Residency::MakeSlots() {
  std::vector<int64_t> bytes = UnitBytes();
  const int count =
      plan_.residency.unit == ResidencyPolicy::Unit::kComponent ? 1 : plan_.residency.prefetch + 1;
  bytes.resize(std::min(bytes.size(), static_cast<size_t>(count)));
  std::reverse(bytes.begin(), bytes.end());
  const auto empty = [this](int64_t size) {
    return at::empty({size}, at::TensorOptions().dtype(at::kByte).device(set_.device()));
  };
  try {
    at::Tensor shared;
    if (bytes.size() == 2) shared = empty(Aligned(bytes[0]) + Aligned(bytes[1]));
    for (const int64_t size : bytes) {
      auto slot = std::make_unique<Slot>();
      // Beside any other unit there is space for the largest at both ends.
      slot->bytes = shared.defined() ? bytes.back() : size;
      slot->buffer = shared.defined() ? shared : empty(size);
      slot->at_end = shared.defined() && !slots_.empty();
      slots_.push_back(std::move(slot));
      slot_bytes_ += size;
      CountDeviceWeights(size);
    }
    // The allocator may hand out memory that queued work still uses.
    free_after_ = copies_->transport().ComputeFence();
    free_since_ = releases_;
  } catch (...) {
    Leave();  // all of them or none
    throw;
  }
}

std::vector<int64_t> Residency::UnitBytes() const {
  std::vector<int64_t> bytes;
  for (const std::unique_ptr<Unit>& unit : units_) bytes.push_back(unit->layout.bytes);
  std::sort(bytes.rbegin(), bytes.rend());
  return bytes;
}

void Residency::Vacate(Slot& slot) noexcept {
  if (Unit* unit = std::exchange(slot.unit, nullptr)) {
    for (Weight* weight : unit->weights) weight->value.clear();
    unit->slot = nullptr;
  }
  if (slot.ticket == 0) return;
  try {
    copies_->Wait(std::exchange(slot.ticket, 0));
  } catch (const std::exception&) {  // Of weights nobody pinned: whoever does copies them anew.
  }
}

void Residency::StartCopy(Unit& unit, Slot& slot) {
  Vacate(slot);
  // The two ends of a buffer overlap, so the fence is that of whatever left, from either.
  for (const std::unique_ptr<Slot>& each : slots_) {
    if (each->unit != nullptr || each->released <= free_since_) continue;
    free_since_ = each->released;
    free_after_ = each->last_use;
  }
  const at::Tensor to = slot.Place(unit.layout.bytes);
  std::vector<at::Tensor>& views = unit.views[&slot];
  if (views.empty()) {
    for (const SlabLayout::Place& place : unit.layout.places) views.push_back(PartView(to, place));
  }
  slot.ticket =
      copies_->Start({.to = to, .slab = unit.slab, .pieces = &unit.pieces, .after = free_after_});
  slot.unit = &unit;
  unit.slot = &slot;
  for (Weight* weight : unit.weights) weight->value.resize(weight->parts.size());
  for (size_t i = 0; i < views.size(); ++i) {
    const SlabLayout::Place& place = unit.layout.places[i];
    place.weight->value[place.part] = views[i];
  }
}

// The least recently used of the smallest slots that fit, not holding a pinned unit or one of
// `keep`.
Residency::Slot* Residency::FindSlot(const Unit& unit, const std::vector<const Unit*>& keep) {
  Slot* found = nullptr;
  for (const std::unique_ptr<Slot>& slot : slots_) {
    if (slot->bytes < unit.layout.bytes) continue;
    if (slot->unit != nullptr && slot->unit->pins > 0) continue;
    if (std::find(keep.begin(), keep.end(), slot->unit) != keep.end()) continue;
    if (found == nullptr || (slot->bytes == found->bytes && slot->used < found->used))
      found = slot.get();
  }
  return found;
}

void Residency::Bring(Unit& unit) {
  if (unfenced_) std::rethrow_exception(unfenced_);
  if (slots_.empty()) MakeSlots();
  if (unit.slot == nullptr) {
    ++misses_;
    Slot* slot = FindSlot(unit, {});
    TORCH_CHECK(slot != nullptr, "weights '", unit.name, "' have no slot on ", set_.device().str(),
                ": every one that fits is in use");
    StartCopy(unit, *slot);
  }
  Slot& slot = *unit.slot;
  if (slot.ticket != 0) {
    try {
      copies_->Wait(std::exchange(slot.ticket, 0));
    } catch (...) {
      Vacate(slot);
      throw;
    }
  }
  slot.used = ++uses_;
  if (last_ != nullptr && last_ != &unit) last_->next = &unit;
  last_ = &unit;
  std::vector<const Unit*> keep = {&unit};
  Unit* ahead = unit.next;
  for (int i = 0; i < plan_.residency.prefetch && ahead != &unit; ++i, ahead = ahead->next) {
    keep.push_back(ahead);
    if (ahead->slot != nullptr) continue;
    Slot* free = FindSlot(*ahead, keep);
    if (free == nullptr) break;
    StartCopy(*ahead, *free);
  }
}

void Residency::Release(Unit& unit) {
  Slot& slot = *unit.slot;
  if (poison_released_) {
    Vacate(slot);
    slot.Place(unit.layout.bytes).fill_(kNaNByte);
  }
  slot.last_use = copies_->transport().ComputeFence();
  slot.released = ++releases_;
}

void Residency::Leave() noexcept {
  for (const std::unique_ptr<Slot>& slot : slots_) Vacate(*slot);
  if (copies_ != nullptr && !slots_.empty()) {
    try {
      copies_->Drain();
    } catch (const std::exception&) {  // The device failed: its next use says so.
    }
  }
  for (const std::unique_ptr<Unit>& unit : units_) unit->views.clear();
  slots_.clear();
  last_ = nullptr;
  free_after_ = nullptr;
  unfenced_ = nullptr;
  CountDeviceWeights(-std::exchange(slot_bytes_, 0));
}

void Residency::Announce() const {
  if (plan_.home != WeightsHome::kFile) return;
  int64_t bytes = 0;
  for (const std::unique_ptr<Unit>& unit : units_) {
    for (const Weight* weight : unit->weights) {
      for (const auto& [data, size] : homes_.FileRanges(*weight)) {
        if ((bytes += size) > kAnnouncedBytes) return;
        Advise(data, size);
      }
    }
  }
}

}  // namespace kino::engine
