// Workers' processes, as kinod tells of them: which run, how they ended and who is to blame for it,
// and which are to be killed. Belongs to the link's strand.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "scheduler/workers/registry.h"
#include "server/config/control.h"
#include "server/frontend/link/attempts.h"
#include "server/frontend/link/peers.h"
#include "server/frontend/metrics/metrics.h"

namespace kino::frontend {

class WorkerExits {
 public:
  using KillWorker = std::function<absl::Status(const std::string& worker, int pid)>;

  // All outlive this.
  WorkerExits(Peers& peers, scheduler::WorkerRegistry& registry, Attempts& attempts,
              Metrics& metrics)
      : peers_(peers), registry_(registry), attempts_(attempts), metrics_(metrics) {}

  // How a stuck worker is killed. Without it (no supervisor) its stream is closed. Any thread.
  void SetKillWorker(KillWorker kill);

  void OnStarted(const config::WorkerStarted& started);
  // Ends the attempts that the worker held.
  void OnExited(const config::WorkerExited& exited);
  // kinod ends everything: what ends from now on is no fault.
  void OnMachineStopping() { is_machine_stopping_ = true; }

  // The worker does not react any more. It gets no other job in its last moments.
  void Kill(const std::string& worker, scheduler::FailureCause cause);

 private:
  Peers& peers_;
  scheduler::WorkerRegistry& registry_;
  Attempts& attempts_;
  Metrics& metrics_;
  absl::Mutex mutex_;
  KillWorker kill_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int> pids_;   // by worker, from kinod
  std::map<std::string, int> kills_;  // by worker: the pid that was to be killed
  bool is_machine_stopping_ = false;
};

}  // namespace kino::frontend
