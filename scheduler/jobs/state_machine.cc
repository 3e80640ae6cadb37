#include "scheduler/jobs/state_machine.h"

#include "absl/strings/str_cat.h"

namespace kino::scheduler {

const char* JobTriggerName(JobTrigger trigger) {
  switch (trigger) {
    case JobTrigger::kClaimed:
      return "claimed";
    case JobTrigger::kCommitted:
      return "committed";
    case JobTrigger::kFailed:
      return "failed";
    case JobTrigger::kAttemptLost:
      return "attempt lost";
    case JobTrigger::kQuarantined:
      return "quarantined";
    case JobTrigger::kCancelled:
      return "cancelled";
    case JobTrigger::kExpired:
      return "expired";
    case JobTrigger::kRequeued:
      return "requeued";
  }
  return "unknown";
}

std::string TransitionDiagram() {
  std::string diagram = "stateDiagram-v2\n    [*] --> QUEUED: submitted\n";
  for (const Transition& transition : kTransitions) {
    absl::StrAppend(&diagram, "    ", JobStateName(transition.from), " --> ",
                    JobStateName(transition.to), ": ", JobTriggerName(transition.trigger), "\n");
  }
  for (const JobState state : kAllJobStates) {
    if (IsTerminal(state)) absl::StrAppend(&diagram, "    ", JobStateName(state), " --> [*]\n");
  }
  return diagram;
}

}  // namespace kino::scheduler
