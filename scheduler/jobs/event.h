// Durable, numbered events of a job, and the cursor by which a store tells of all changes in order.
// Plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "scheduler/jobs/job.h"

namespace kino::scheduler {

struct StateEvent {
  int64_t number = 0;  // from 1 without gaps, per job
  JobState state = JobState::kQueued;
  int attempt = 0;  // 0 before the first
  absl::Time time{};
  std::string reason{};  // where there is something to say: "worker lost", "cancel requested"
};

// One StateEvent, seen over all jobs.
struct Change {
  int64_t cursor = 0;  // rises with every change of the store; may have gaps
  std::string job_id{};
  StateEvent event{};
  // Where the event says QUEUED; read later on, only while that is the job's last event.
  std::optional<QueuedJob> queued{};
};

}  // namespace kino::scheduler
