// Devices that are not trusted (scheduler/workers/device_health.h): taken out when jobs keep
// crashing on them, checked again and again, let back in. Which are out outlives the frontend, in a
// file. Belongs to the link's strand and never blocks on a write.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "scheduler/clock.h"
#include "scheduler/jobs/job.h"
#include "scheduler/store/job_store.h"
#include "scheduler/workers/device_health.h"
#include "scheduler/workers/dispatcher.h"
#include "scheduler/workers/registry.h"
#include "server/frontend/lifecycle/executor.h"
#include "server/frontend/link/commands.h"
#include "server/frontend/link/peers.h"

namespace kino::frontend {

class Devices {
 public:
  // All outlive this.
  struct Parts {
    scheduler::JobStore& store;
    const scheduler::Clock& clock;
    Executor& io;
    scheduler::WorkerRegistry& registry;
    const Peers& peers;
    Commands& commands;
    scheduler::Dispatcher::Post post;
    // A device is trusted again: its workers take jobs.
    std::function<void()> on_trusted;
    // The worker does not answer a check any more.
    std::function<void(const std::string& worker)> kill;
  };
  // `path`: of the file. A check that takes longer than `check_timeout`, while its worker holds no
  // attempt, has hung.
  Devices(Parts parts, std::string path, absl::Duration check_timeout)
      : parts_(std::move(parts)),
        path_(std::move(path)),
        check_timeout_(check_timeout),
        health_({}, parts_.clock) {}

  // Reads which devices the last frontend had taken out. Blocks. REQUIRES: called first.
  absl::Status Start();

  // An attempt's crash, hang or device error on `device` is durable.
  void OnCrash(const std::string& device, const scheduler::AttemptRef& ref);
  // To be called often.
  void Tick();

 private:
  // Its attempts' crashes are the device's: asks the store until it has taken that.
  void Forgive(const std::vector<scheduler::AttemptRef>& attempts);
  void Check(const std::string& device, const Peer& peer);
  void Save();

  const Parts parts_;
  const std::string path_;
  const absl::Duration check_timeout_;
  scheduler::DeviceHealth health_;
  std::vector<scheduler::AttemptRef> unforgiven_;  // the store has not taken it
  absl::Duration forgive_again_;
};

}  // namespace kino::frontend
