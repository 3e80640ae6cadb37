// Where a job could run and whether it fits there, asked of the planner (engine/describe/plan.h)
// before a job is accepted. Free functions over values; thread-safe.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/describe/plan.h"
#include "engine/describe/request.h"
#include "server/config/config.h"
#include "server/convert/memory_estimate.h"
#include "server/frontend/link/worker_link.h"
#include "server/frontend/profiles/profiles.h"
#include "server/frontend/rpc/catalog.h"

namespace kino::frontend {

// What jobs may take on one kind of device.
struct Target {
  std::string device;  // "cpu", "cuda:0"
  engine::DeviceSpec spec;
  bool operator==(const Target& other) const {
    return device == other.device && spec.device_bytes == other.spec.device_bytes &&
           spec.host_bytes == other.spec.host_bytes;
  }
};

// The configured workers and those of `known` that are not among them, each kind once: what they
// said they have, under what the configuration allows.
std::vector<Target> Targets(const std::vector<config::WorkerConfig>& configured,
                            const std::vector<WorkerMemory>& known);

// Appends why the model's configuration does not let a request bring `plan`: any plan of its own,
// or its lossy options.
void CheckRequestPlan(const CatalogEntry& entry, const engine::Plan& plan,
                      std::vector<engine::FieldViolation>& violations);

// Who asks for profiles, and how long they can wait.
struct Asker {
  Profiles& profiles;
  std::string tenant;
  absl::Time deadline;
};

// The estimates for an effective request, one for each target; where no worker can tell, it says so
// as a refusal. INVALID_ARGUMENT: its plan does not parse.
absl::StatusOr<std::vector<v1::MemoryEstimate>> Estimate(const CatalogEntry& entry,
                                                         const engine::Request& request,
                                                         const std::vector<Target>& targets,
                                                         const Asker& asker);

// FAILED_PRECONDITION (reason DOES_NOT_FIT) when an effective request fits on none of the targets,
// saying what it needs, what there is and what would fit. Else the floating-point operations of its
// run; 0 when there is no target, and where no worker can tell in time: the job is judged before it
// is given to one.
absl::StatusOr<double> CheckFits(const CatalogEntry& entry, const engine::Request& request,
                                 const std::vector<Target>& targets, const Asker& asker);

}  // namespace kino::frontend
