// The only place that says how a job's state may change. Stores call NextState before each
// conditional UPDATE; ARCHITECTURE.md shows TransitionDiagram().
#pragma once

#include <optional>
#include <string>

#include "scheduler/jobs/job.h"

namespace kino::scheduler {

enum class JobTrigger : int {
  kClaimed,      // leased to a worker
  kCommitted,    // the attempt's result is durable
  kFailed,       // cannot be run (any more)
  kAttemptLost,  // the attempt ended without a result and the job runs again
  kQuarantined,  // ended its worker too often
  kCancelled,
  kExpired,   // start_timeout passed in the queue
  kRequeued,  // an operator lets an ended job run again
};
inline constexpr JobTrigger kAllJobTriggers[] = {JobTrigger::kClaimed,     JobTrigger::kCommitted,
                                                 JobTrigger::kFailed,      JobTrigger::kAttemptLost,
                                                 JobTrigger::kQuarantined, JobTrigger::kCancelled,
                                                 JobTrigger::kExpired,     JobTrigger::kRequeued};
const char* JobTriggerName(JobTrigger trigger);  // "claimed", ...

struct Transition {
  JobState from;
  JobTrigger trigger;
  JobState to;
};
inline constexpr Transition kTransitions[] = {
    {JobState::kQueued, JobTrigger::kClaimed, JobState::kRunning},
    {JobState::kQueued, JobTrigger::kCancelled, JobState::kCancelled},
    {JobState::kQueued, JobTrigger::kExpired, JobState::kExpired},
    {JobState::kQueued, JobTrigger::kFailed, JobState::kFailed},
    {JobState::kRunning, JobTrigger::kCommitted, JobState::kSucceeded},
    {JobState::kRunning, JobTrigger::kFailed, JobState::kFailed},
    {JobState::kRunning, JobTrigger::kCancelled, JobState::kCancelled},
    {JobState::kRunning, JobTrigger::kQuarantined, JobState::kQuarantined},
    {JobState::kRunning, JobTrigger::kAttemptLost, JobState::kQueued},
    {JobState::kFailed, JobTrigger::kRequeued, JobState::kQueued},
    {JobState::kQuarantined, JobTrigger::kRequeued, JobState::kQueued},
    {JobState::kExpired, JobTrigger::kRequeued, JobState::kQueued},
};

// The state after `trigger`, or nothing where the table has no such row.
constexpr std::optional<JobState> NextState(JobState from, JobTrigger trigger) {
  for (const Transition& transition : kTransitions) {
    if (transition.from == from && transition.trigger == trigger) return transition.to;
  }
  return std::nullopt;
}

// kTransitions as a mermaid stateDiagram-v2.
std::string TransitionDiagram();

}  // namespace kino::scheduler
