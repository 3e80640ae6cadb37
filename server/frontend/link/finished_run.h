// What a finished attempt teaches about how long runs take (scheduler/queue/run_history.h).
#pragma once

#include <set>
#include <string>

#include "absl/status/status.h"
#include "kino/v1/stored.pb.h"
#include "scheduler/jobs/job.h"
#include "scheduler/queue/run_history.h"
#include "scheduler/store/job_store.h"

namespace kino::frontend {

// FinishedRun::setting of runs of `plan` on such a device.
std::string SettingOf(const v1::Plan& plan, const std::string& device_name);

// `stats`: of the attempt that succeeded.
scheduler::FinishedRun FinishedRunOf(const std::string& model, const scheduler::JobWork& work,
                                     const v1::RunStats& stats);

// From the latest jobs of each model that have succeeded. Blocks on the store.
absl::Status LearnFromStore(scheduler::JobStore& store, const std::set<std::string>& models,
                            scheduler::RunHistory& history);

}  // namespace kino::frontend
