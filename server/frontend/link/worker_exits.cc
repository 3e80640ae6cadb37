#include "server/frontend/link/worker_exits.h"

#include <signal.h>
#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace kino::frontend {
namespace {

// Ended as it was told to, or by itself without a fault.
bool IsOrderly(const config::WorkerExited& exited) {
  return exited.signal == SIGTERM || (exited.signal == 0 && exited.exit_code == 0);
}

}  // namespace

void WorkerExits::SetKillWorker(KillWorker kill) {
  absl::MutexLock lock(&mutex_);
  kill_ = std::move(kill);
}

void WorkerExits::OnStarted(const config::WorkerStarted& started) {
  pids_[started.worker] = started.pid;
}

void WorkerExits::OnExited(const config::WorkerExited& exited) {
  if (const auto pid = pids_.find(exited.worker); pid != pids_.end() && pid->second == exited.pid)
    pids_.erase(pid);
  const Peer* peer = peers_.Find(exited.worker);
  // Another process serves under this name already.
  if (peer != nullptr && peer->pid != exited.pid) return;
  scheduler::FailureCause cause = scheduler::FailureCause::kCrash;
  if (is_machine_stopping_ || IsOrderly(exited)) cause = scheduler::FailureCause::kInterrupted;
  if (const auto killed = kills_.find(exited.worker); killed != kills_.end()) {
    // Others that ran beside the stuck one are not to blame for it.
    if (killed->second == exited.pid) cause = scheduler::FailureCause::kInterrupted;
    kills_.erase(killed);
  }
  const std::string reason =
      exited.signal != 0 ? absl::StrCat("worker lost: ended by signal ", exited.signal)
                         : absl::StrCat("worker lost: ended with exit code ", exited.exit_code);
  spdlog::warn("worker {}: {}", exited.worker, reason);
  for (const scheduler::LostAttempt& lost :
       registry_.WorkerEnded(exited.worker, exited.pid, cause, reason)) {
    attempts_.Lose(lost, &exited);
  }
}

void WorkerExits::Kill(const std::string& worker, scheduler::FailureCause cause) {
  const Peer* peer = peers_.Find(worker);
  if (peer != nullptr) (void)registry_.StartDraining(peer->id);
  const auto started = pids_.find(worker);
  const int pid = started != pids_.end() ? started->second : peer != nullptr ? peer->pid : 0;
  KillWorker kill;
  {
    absl::MutexLock lock(&mutex_);
    kill = kill_;
  }
  metrics_.WorkerKilled();
  if (kill && pid > 0) {
    kills_[worker] = pid;
    const absl::Status asked = kill(worker, pid);
    if (asked.ok()) {
      spdlog::warn("worker {}: stuck ({}), kinod was asked to kill it", worker,
                   scheduler::FailureCauseName(cause));
      return;
    }
    spdlog::error("worker {}: stuck, and kinod cannot be asked to kill it: {}", worker,
                  std::string(asked.message()));
  }
  if (peer != nullptr) peer->stream->Close(absl::AbortedError("the worker is stuck"));
}

}  // namespace kino::frontend
