#include "engine/describe/machine_speed.h"

#include <algorithm>

namespace kino::engine {
namespace {

// How much faster (or slower) a linear layer is on a GPU, its decoding apart.
double LinearSpeedup(QuantScheme scheme) {
  switch (scheme) {
    case QuantScheme::kFp8Dyn:
      return 1.7;  // FP8 against bfloat16 GEMMs of these shapes
    case QuantScheme::kInt8:
      return 0.8;  // outlier columns are computed apart
    default:
      return 1.0;
  }
}

}  // namespace

MachineSpeed MachineSpeed::Of(bool is_gpu) {
  if (is_gpu) {
    // An H100-class GPU: dense bfloat16 GEMMs, attention of head dimension 64, PCIe Gen5. No GPU
    // has measured them. Weights that are not page-locked are filled into staging slabs by one
    // thread, which is slower than the bus: one core of a Xeon server copied 9.8e9 bytes a second
    // from a file in the page cache. A disk, or a dtype that the file has not, is slower still.
    return {.linear = 790e12,
            .attention = 500e12,
            .convolution = 400e12,
            .pinned = 55e9,
            .unpinned = 9e9,
            .decode = 2.5e12,
            .copy_overhead = 20e-6};
  }
  // A few cores.
  return {.linear = 100e9,
          .attention = 60e9,
          .convolution = 80e9,
          .pinned = 6e9,
          .unpinned = 6e9,
          .decode = 4e9,
          .copy_overhead = 20e-6};
}

double MachineSpeed::ComputeSeconds(const PhaseNeed& phase, const PartNeeds& part) const {
  return phase.linear_flops / linear + phase.attention_flops / attention +
         phase.convolution_flops / convolution +
         // Decoded once to memory, and read again by the operator.
         static_cast<double>(part.decoded_stored_bytes + 2 * part.decoded_bytes) / decode;
}

void MachineSpeed::Add(const PhaseNeed& phase, const WeightNeeds& need, const PartNeeds& part,
                       PlanTime& time) const {
  const double passes = phase.passes;
  if (passes == 0) return;
  PhaseNeed computed = phase;
  computed.linear_flops /= LinearSpeedup(need.plan.quantize);
  const double compute = ComputeSeconds(computed, part);
  time.seconds += passes * compute;
  if (!need.is_offloaded) return;

  const double bandwidth = need.plan.home == WeightsHome::kPinned ? pinned : unpinned;
  const double transfer =
      static_cast<double>(part.bytes) / bandwidth + static_cast<double>(part.units) * copy_overhead;
  const double first = static_cast<double>(part.first_bytes) / bandwidth;
  double waiting = 0, copying = 0;
  if (need.units <= need.slots || need.plan.residency.unit == ResidencyPolicy::Unit::kComponent) {
    // What has come stays for the phase.
    copying = transfer;
    waiting = transfer;
  } else if (need.plan.residency.prefetch == 0) {
    copying = waiting = passes * transfer;
  } else {
    // The first unit of the phase, then whatever takes longer. Attention and other work without
    // weights hides no more than the copies ahead when they are single layers.
    const double hiding = need.plan.residency.unit == ResidencyPolicy::Unit::kLeaf
                              ? compute - computed.attention_flops / attention
                              : compute;
    copying = passes * transfer;
    waiting = std::min(copying, first + passes * std::max(0.0, transfer - hiding));
  }
  time.seconds += waiting;
  time.transfer_seconds += copying;
  time.waiting_seconds += waiting;
}

}  // namespace kino::engine
