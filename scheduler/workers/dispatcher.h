// Brings queued jobs to free slots: reserves a slot, claims the job that the policy picks for it,
// and hands the lease over.
// Thread-safe; Pump never blocks. Its callbacks run on the store's thread, so Stop it, then destroy
// the store, then this and the registry.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "scheduler/store/job_store.h"
#include "scheduler/workers/registry.h"

namespace kino::scheduler {

class Dispatcher {
 public:
  // A lease for the worker behind `session`, already assigned in the registry. Runs on the store's
  // thread and must be quick.
  using Start = std::function<void(SessionId session, ClaimedAttempt claimed)>;

  // `log`: what an operator should know.
  Dispatcher(JobStore& store, WorkerRegistry& registry, Start start,
             std::function<void(const std::string&)> log);

  // To be called whenever there may be a match: a job was queued (a change listener may call it), a
  // worker said hello or has a free slot, JobStore::NextTimer passed. After a failing store, call
  // it again later.
  void Pump();

  // Claims nothing more. Call it before the store is destroyed.
  void Stop();

 private:
  void Round();
  void Claim(const Reservation& reservation, int64_t wish);
  void HandOver(const Reservation& reservation, ClaimedAttempt claimed);

  JobStore& store_;
  WorkerRegistry& registry_;
  const Start start_;
  const std::function<void(const std::string&)> log_;
  absl::Mutex mutex_;
  int64_t wishes_ ABSL_GUARDED_BY(mutex_) = 0;  // calls of Pump
  bool is_stopped_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace kino::scheduler
