// The planner: how much memory each stage of a request needs under a plan and how much longer it
// takes than with everything resident; which plan to choose; what would fit if nothing does.
//
// Everything is predicted from the weight index and from profiles (profile.h) before anything runs.
// Peaks are those the engine's counting allocator (CPU) or CUDA's caching allocator would report;
// times are rough and meant for ordering plans. A Planner is thread-safe.
//
// Every function that gives a plan also gives the errors of ProfileSource::Profile.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/core/kernel_counts.h"
#include "engine/describe/describe.h"
#include "engine/describe/profile.h"
#include "engine/describe/request.h"
#include "engine/describe/stage.h"

namespace kino::engine {

// Where a plan is to run. Bytes are limits to keep below, already the least of what there is and
// what is allowed; 0: unknown, so nothing is too large. On the CPU device memory is host memory and
// the lesser limit holds for both.
struct DeviceSpec {
  bool is_gpu = false;
  int64_t device_bytes = 0;
  int64_t host_bytes = 0;
};
// `spec` under the max_device_memory and max_host_memory of `plan`.
DeviceSpec LimitedBy(const DeviceSpec& spec, const Plan& plan);

// Most bytes at a time during a stage. Mapped files do not count.
struct StageEstimate {
  Stage stage = Stage::kDenoise;
  int64_t weights = 0;
  int64_t activations = 0;
  int64_t workspace = 0;      // weights decoded for the layer in use, libraries' scratch memory
  int64_t host = 0;           // on the CPU: device()
  double flops = 0;           // floating-point operations of all its steps
  KernelCounts kernels = {};  // of all its steps, in the dtype of computation; on a CPU none
  int64_t device() const { return weights + activations + workspace; }
};

// Time against the same request with every weight resident in the compute dtype, untiled.
enum class TimeClass {
  kSame,        // up to 1.02 times
  kLittleMore,  // up to 1.1 times
  kMore,        // up to 1.5 times
  kMuchMore,    // up to 3 times
  kFarMore,
};
// "same", "<= 1.1x", "<= 1.5x", "<= 3x", "> 3x".
const char* TimeClassName(TimeClass time_class);

struct PlanEstimate {
  // Every field that matters is set; no mode. What the engine is given to run.
  Plan plan;
  std::string name;  // "block:1 + VAE tiling"
  // Each once, in the order in which the run first comes to them.
  std::vector<StageEstimate> stages;
  int64_t peak_device = 0;
  int64_t peak_host = 0;
  double slowdown = 1.0;  // 1.0: as resident; below it where lossy arithmetic is faster
  TimeClass time_class = TimeClass::kSame;
  // Share of the bytes copied from home to the device while the device computes; 1 when none are.
  double transfer_hidden = 1.0;
  bool lossless = true;
  bool fits = true;

  // The stage that sets peak_device.
  const StageEstimate& peak_stage() const;
};

// Plans for one model, request and device.
class Planner {
 public:
  // request: effective (ResolveRequest found no violation); its plan is not looked at. profiles:
  // the model's on such a device, in the dtype it is to be computed in. `allow_lossy` lets the
  // planner cast and quantize where the plan does not ask for it by name. The model outlives the
  // Planner.
  Planner(const ModelDescription& model, const Request& request,
          std::shared_ptr<ProfileSource> profiles, const DeviceSpec& device,
          bool allow_lossy = false);

  // What `plan` needs, its mode aside; absent fields take their defaults. INVALID_ARGUMENT: a text
  // that does not parse. FAILED_PRECONDITION: pinned memory without a GPU.
  absl::StatusOr<PlanEstimate> Estimate(const Plan& plan) const;

  // The plans that keep what `base` sets, fastest first; of those as fast, the one that needs the
  // least. Those that change the picture (VAE tiling, then lossy storage) come behind those that do
  // not. Never empty.
  absl::StatusOr<std::vector<PlanEstimate>> Table(const Plan& base) const;

  // By base.mode. "auto": the first of the table that fits. "fastest": the first of the table.
  // "smallest": the least peak on the device. None: `base` as it is. RESOURCE_EXHAUSTED when that
  // one does not fit (or none does), with need, have and WhatWouldFit.
  absl::StatusOr<PlanEstimate> Choose(const Plan& base) const;

  // For a message: "fits with block:1 offload and VAE tiling", "fits up to 97 frames with ...", or
  // what the smallest plan needs.
  std::string WhatWouldFit(const Plan& base) const;

  // After an out-of-memory error in `stage` under `current`: the fastest plan that keeps what
  // `base` sets and needs less in that stage than `current`, on the device, or, where only the
  // host's memory can differ, on the host. NOT_FOUND when there is none.
  absl::StatusOr<PlanEstimate> NextLower(const Plan& current, const Plan& base, Stage stage) const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace kino::engine
