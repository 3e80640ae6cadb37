#include "engine/memory/residency.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "engine/core/torch_types.h"
#include "engine/memory/copy_engine.h"

namespace kino::engine {

// A place on the device for one run of groups.
struct WeightStream::Slot {
  SlotCopy copy;
  int run = -1;                   // what it holds, or what is on its way
  CopyEngine::Ticket ticket = 0;  // not yet waited for
  bool in_use = false;            // a guard is held
};

WeightStream::WeightStream(std::vector<WeightGroup*> groups, const ResidencyPolicy& policy,
                           c10::Device device, CopyEngine* copies)
    : groups_(std::move(groups)), policy_(policy), device_(device), copies_(copies) {
  if (policy_.blocks_per_group == 0) return;
  int64_t largest = 0;
  for (int run = 0; run < Runs(); ++run) {
    std::vector<Weight*> weights;
    int64_t total = 0;
    for (int i = run * policy_.blocks_per_group;
         i < std::min((run + 1) * policy_.blocks_per_group, size()); ++i) {
      weights.insert(weights.end(), groups_[i]->weights().begin(), groups_[i]->weights().end());
    }
    SlotOffsets(weights, &total);
    largest = std::max(largest, total);
  }
  const int slots = std::min(policy_.prefetch + 1, Runs());
  for (int i = 0; i < slots; ++i) {
    slots_.push_back(std::make_unique<Slot>());
    slots_.back()->copy.buffer =
        at::empty({largest}, at::TensorOptions().dtype(at::kByte).device(device_));
  }
}

WeightStream::~WeightStream() {
  // A prefetch nobody will enter still writes to its slot.
  for (const std::unique_ptr<Slot>& slot : slots_) {
    if (slot->ticket == 0) continue;
    try {
      copies_->Wait(slot->ticket);
    } catch (const std::exception&) {  // A failed copy of weights nobody reads is no error.
    }
  }
}

int WeightStream::Runs() const {
  return (size() + policy_.blocks_per_group - 1) / policy_.blocks_per_group;
}

void WeightStream::StartCopy(int run) {
  Slot* target = nullptr;
  for (const std::unique_ptr<Slot>& slot : slots_) {
    if (slot->run == run) return;  // there, or on its way
    if (!slot->in_use && slot->ticket == 0 && target == nullptr) target = slot.get();
  }
  if (target == nullptr) return;  // every slot is in use; Enter copies when it comes to it
  for (Weight* weight : target->copy.weights) weight->value.reset();
  target->copy.weights.clear();
  for (int i = run * policy_.blocks_per_group;
       i < std::min((run + 1) * policy_.blocks_per_group, size()); ++i) {
    target->copy.weights.insert(target->copy.weights.end(), groups_[i]->weights().begin(),
                                groups_[i]->weights().end());
  }
  target->run = run;
  target->ticket = copies_->Start(target->copy);
}

WeightStream::Guard WeightStream::Enter(int index) {
  if (slots_.empty()) return Guard(nullptr, 0);
  const int run = index / policy_.blocks_per_group;
  StartCopy(run);
  for (const std::unique_ptr<Slot>& slot : slots_) {
    if (slot->run != run) continue;
    if (slot->ticket != 0) copies_->Wait(std::exchange(slot->ticket, 0));
    slot->in_use = true;
    for (int ahead = 1; ahead <= policy_.prefetch && ahead < Runs(); ++ahead)
      StartCopy((run + ahead) % Runs());
    return Guard(this, run);
  }
  // All slots hold prefetched runs that were not the next one after all: give the first of them up.
  for (const std::unique_ptr<Slot>& slot : slots_) {
    if (slot->in_use) continue;
    copies_->Wait(std::exchange(slot->ticket, 0));
    return Enter(index);
  }
  TORCH_CHECK(false, "weight group '", groups_[index]->name(),
              "' has no slot: every slot is in use");
}

void WeightStream::Leave(int run) {
  for (const std::unique_ptr<Slot>& slot : slots_) {
    if (slot->run != run || !slot->in_use) continue;
    slot->in_use = false;
    copies_->Release(slot->copy);
  }
}

WeightStream::Guard::~Guard() {
  if (stream_ != nullptr) stream_->Leave(run_);
}

Residency::Residency(WeightSet& set, const ResidencyPolicy& policy) : set_(set), policy_(policy) {
  if (policy_.blocks_per_group > 0) copies_ = CopyEngine::Create(set.device());
}

Residency::~Residency() = default;

WeightStream* Residency::AddStream(std::vector<WeightGroup*> groups) {
  streams_.push_back(std::unique_ptr<WeightStream>(
      new WeightStream(std::move(groups), policy_, set_.device(), copies_.get())));
  return streams_.back().get();
}

void Residency::LoadAll() {
  for (const std::unique_ptr<WeightGroup>& group : set_.groups()) {
    const bool streamed = policy_.blocks_per_group > 0 &&
                          std::any_of(streams_.begin(), streams_.end(), [&](const auto& stream) {
                            return std::find(stream->groups_.begin(), stream->groups_.end(),
                                             group.get()) != stream->groups_.end();
                          });
    if (streamed) continue;
    for (Weight* weight : group->weights()) {
      // On the CPU a tensor whose dtype fits is used in the mapped file; else this is its one copy.
      weight->value =
          HomeTensor(*weight).to(at::TensorOptions().device(set_.device()).dtype(weight->dtype));
    }
  }
}

}  // namespace kino::engine
