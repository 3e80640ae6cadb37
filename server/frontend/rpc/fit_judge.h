// Whether a queued job fits the worker that it is about to be given to (Dispatcher::Judge): what it
// needs, as the workers tell it, held against what each worker said it has. Jobs that were admitted
// before any worker could tell are found here. Thread-safe.
#pragma once

#include <functional>
#include <string>

#include "scheduler/jobs/job.h"
#include "scheduler/workers/dispatcher.h"
#include "server/config/config.h"
#include "server/frontend/lifecycle/executor.h"
#include "server/frontend/link/worker_link.h"
#include "server/frontend/profiles/profiles.h"
#include "server/frontend/rpc/catalog.h"

namespace kino::frontend {

class FitJudge {
 public:
  // All outlive the judge.
  FitJudge(const config::Config& config, scheduler::JobStore& store, const Catalog& catalog,
           Profiles& profiles, const WorkerLink& link);
  // Runs what was asked, then ends.
  ~FitJudge() { Stop(); }

  // As Dispatcher::Judge: returns at once, answers on a thread of the judge's own.
  void Ask(const scheduler::Reservation& reservation, const scheduler::QueuedJob& job,
           std::function<void(scheduler::Verdict)> done);
  void Stop() { thread_.Stop(); }

  // kElsewhere where a worker fits that is up, or one that is configured and may still come (see
  // WorkerLink::Absent). Blocks until the workers have told what is not known yet, for some seconds
  // at most; then, and for what is broken otherwise, it is kHere: the worker itself will tell.
  scheduler::Verdict Judge(const std::string& worker, const std::string& model,
                           const std::string& request);

 private:
  const config::Config& config_;
  scheduler::JobStore& store_;
  const Catalog& catalog_;
  Profiles& profiles_;
  const WorkerLink& link_;
  Executor thread_{"judge", 1};
};

}  // namespace kino::frontend
