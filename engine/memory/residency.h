// Where one component's weights are, and when. One mechanism for every policy: units of weights
// that are pinned while they are used, and slots on the device that units take turns in.
//
// Units: none (everything stays), a part of the component ("model"), N blocks of a stack
// ("block:N"; groups of no stack are units of their own) or one layer ("leaf"). A component has
// prefetch + 1 slots (one for "model"); the i-th is as large as the i-th largest unit, so that no
// more is held than the largest units together. Two slots are the two ends of one buffer, which any
// two units fit between: with slots of their own sizes an odd number of units that take turns would
// have the largest one wait, each time round, for the slot of the one before it. A unit that is
// pinned starts the copies of those that followed it the last time. Slots are made when the first
// unit is pinned, reused, and freed by Leave.
//
// Threads: one thread configures and pins; copies run on a thread of the Residency's own, and on a
// copy stream where the device has one.
#pragma once

#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "engine/core/run_context.h"
#include "engine/describe/weight_plan.h"
#include "engine/memory/copy_engine.h"
#include "engine/memory/staging_slabs.h"
#include "engine/memory/weight_homes.h"
#include "engine/weights/weight_set.h"

namespace kino::engine {

class Residency {
 public:
  explicit Residency(WeightSet& set);
  ~Residency();
  Residency(const Residency&) = delete;
  Residency& operator=(const Residency&) = delete;

  // The groups of one BlockStack, in the order they are used. Before Configure.
  void AddStack(std::vector<WeightGroup*> groups) { stacks_.push_back(std::move(groups)); }
  const std::vector<std::vector<WeightGroup*>>& stacks() const { return stacks_; }
  // From now on the weights are held as `plan` says; nothing if they are. Reads the mapped
  // checkpoint, not the disk. REQUIRES: nothing is pinned. Throws StatusError (FAILED_PRECONDITION:
  // pinned memory without a GPU; CANCELLED, within one weight or unit, by `context`, which counts
  // them) and what torch throws; then nothing is held until it succeeds.
  void Configure(const WeightPlan& plan, const RunContext& context = {});
  const WeightPlan& plan() const { return plan_; }
  // Gives back what is held under another plan than this one, which is to come.
  void MakeWay(const WeightPlan& plan) noexcept;

  // A stage that uses the component is next: its first units are read ahead from the disk.
  void Announce() const;
  // No stage uses the component now: its slots are freed. What stays, stays. REQUIRES: nothing is
  // pinned.
  void Leave() noexcept;
  // Bytes of the units, largest first; empty when everything stays.
  std::vector<int64_t> UnitBytes() const;

  // Slabs that weights are staged in; without, they are its own. Before Configure.
  void set_staging(std::shared_ptr<StagingSlabs> slabs) { staging_ = std::move(slabs); }

  // Units that were pinned without a copy under way or done, which the device then waits for.
  int64_t misses() const { return misses_; }
  // For tests: another transport than the device's; one that stages pins as well. Before Configure.
  void set_transport(std::unique_ptr<Transport> transport) { transport_ = std::move(transport); }
  // For tests: released units are overwritten with NaNs and leave their slot, so that using a
  // weight that is not pinned shows.
  static void set_poison_released(bool poison) { poison_released_ = poison; }

 private:
  class Unit;
  struct Slot;

  void MakeUnits();
  void MakeUnit(std::string name, std::vector<Weight*> weights);
  void MoveHomes(const RunContext& context);
  void MakeResident(const RunContext& context);
  void Unload() noexcept;
  void MakeSlots();
  void Bring(Unit& unit);
  void Release(Unit& unit);
  Slot* FindSlot(const Unit& unit, const std::vector<const Unit*>& keep);
  void StartCopy(Unit& unit, Slot& slot);
  void Vacate(Slot& slot) noexcept;

  static bool poison_released_;
  WeightSet& set_;
  std::unique_ptr<Transport> transport_;  // until the copy engine takes it
  std::shared_ptr<StagingSlabs> staging_;
  WeightHomes homes_;
  WeightPlan plan_;
  bool is_configured_ = false;
  bool has_forms_ = false;  // plan_'s, whether or not it is in force
  std::vector<std::vector<WeightGroup*>> stacks_;
  std::vector<std::unique_ptr<Unit>> units_;
  std::unique_ptr<CopyEngine> copies_;
  std::vector<std::unique_ptr<Slot>> slots_;  // smallest first
  Unit* last_ = nullptr;                      // pinned most recently
  // The compute work that the slots' free memory was used by last: the latest of what held it.
  std::shared_ptr<const Fence> free_after_;
  int64_t free_since_ = 0;       // its release
  std::exception_ptr unfenced_;  // why some use of a slot has no fence
  int64_t uses_ = 0, releases_ = 0, misses_ = 0;
  int64_t slot_bytes_ = 0;
  int64_t resident_bytes_ = 0;
};

}  // namespace kino::engine
