// A rough clock for the planner: how long a phase computes, and how much of the copying of its
// weights that hides. Speeds are of typical hardware, not of the machine at hand: good for ordering
// plans and for a class of time. Values only; no torch.
#pragma once

#include "engine/describe/profile.h"
#include "engine/describe/weight_needs.h"

namespace kino::engine {

struct PlanTime {
  double seconds = 0;
  double transfer_seconds = 0;  // of copies, hidden or not
  double waiting_seconds = 0;   // of computing for copies
};

struct MachineSpeed {
  // Floating-point operations a second.
  double linear = 0, attention = 0, convolution = 0;
  double pinned = 0, unpinned = 0;  // bytes a second from home to the device
  double decode = 0;                // bytes a second, read and written
  double copy_overhead = 0;         // seconds for each copy

  static MachineSpeed Of(bool is_gpu);

  // One pass.
  double ComputeSeconds(const PhaseNeed& phase, const PartNeeds& part) const;
  // All passes of `phase` through `part` of `need`.
  void Add(const PhaseNeed& phase, const WeightNeeds& need, const PartNeeds& part,
           PlanTime& time) const;
};

}  // namespace kino::engine
