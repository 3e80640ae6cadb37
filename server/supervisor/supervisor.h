// kinod's loop: starts kino-frontend and the workers, restarts what ends (with back-off), kills a
// stuck worker when the frontend asks, and on SIGTERM or SIGINT stops all of them; SIGHUP changes
// nothing. A service manager is told of it. No threads, no gRPC, no torch: nothing a child does can
// take it down. REQUIRES: the process is single-threaded, and blocks no signal of its own.
#pragma once

#include <list>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/config/config.h"
#include "server/supervisor/backoff.h"
#include "server/supervisor/child.h"
#include "server/supervisor/notify.h"

namespace kino::supervisor {

struct SupervisorOptions {
  std::string bin_dir;  // holds kino-frontend and kino-worker
  config::Config config;
  Notifier notifier;
};

class Supervisor {
 public:
  explicit Supervisor(SupervisorOptions options);

  // Until everything has stopped. OK after an ordered stop; FAILED_PRECONDITION when the frontend
  // cannot run at all.
  absl::Status Run();

 private:
  enum class Kind { kFrontend, kWorker };
  struct Process {
    Kind kind;
    std::string name;
    std::vector<std::string> argv;
    RestartBackoff backoff;
    Child child;  // pid -1 while it is not running
    absl::Duration started_at;
    absl::Duration start_due;  // while it is not running
    // How its last incarnation ended, for a frontend that starts later.
    pid_t last_pid = -1;
    ExitReport last_exit;
    bool is_running() const { return child.pid > 0; }
  };

  absl::Status SetUpSignals();
  absl::Status WatchForAddress();
  void Start(Process& process);
  void OnExit(Process& process);
  void OnSignal();
  void OnControl();
  void OnAddress();
  void BeginStop(const std::string& why);
  void KillAll();
  void TellFrontend(const std::string& what, const Process& worker, bool has_exited);
  void Notify();
  std::string StateLines() const;
  absl::Duration NextWakeUp() const;
  bool AnyRunning() const;

  const SupervisorOptions options_;
  std::list<Process> processes_;  // the frontend first
  Fd signals_;
  Fd control_;  // our end of the frontend's socketpair
  Fd address_;  // tells that the frontend serves; open while there is somebody to be told
  bool is_serving_ = false;
  bool has_served_ = false;
  bool is_stopping_ = false;
  std::string stop_reason_;
  absl::Duration stop_deadline_ = absl::InfiniteDuration();
  std::string told_;  // what the service manager knows
  bool is_heard_ = true;
  absl::Duration notify_due_ = absl::InfiniteDuration();  // though nothing changes
  absl::Status result_;
};

}  // namespace kino::supervisor
