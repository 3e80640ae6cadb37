#include "server/supervisor/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/config/control.h"

namespace kino::supervisor {
namespace {

constexpr absl::Duration kKillTime = absl::Seconds(5);  // in which a killed child is gone
constexpr absl::Duration kNotifyRetry = absl::Seconds(1);

absl::Duration Monotonic() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::DurationFromTimespec(now);
}

// Tells this kinod from every other one.
std::string NewId() {
  uint64_t random[2] = {};
  if (getrandom(random, sizeof(random), 0) != static_cast<ssize_t>(sizeof(random))) {
    random[0] = static_cast<uint64_t>(getpid());
    random[1] = static_cast<uint64_t>(absl::ToInt64Nanoseconds(Monotonic()));
  }
  return absl::StrFormat("%016x%016x", random[0], random[1]);
}

}  // namespace

Supervisor::Supervisor(SupervisorOptions options) : options_(std::move(options)) {
  const config::SupervisorConfig& timing = options_.config.supervisor;
  const RestartBackoff backoff(timing.restart_min, timing.restart_max, timing.healthy_after);
  const std::string& file = options_.config.file;
  processes_.push_back({.kind = Kind::kFrontend,
                        .name = "kino-frontend",
                        .argv = {options_.bin_dir + "/kino-frontend", "--config", file,
                                 "--control-fd", "3", "--supervisor", NewId()},
                        .backoff = backoff,
                        .child = {},
                        .started_at = {},
                        .start_due = {},
                        .last_pid = -1,
                        .last_exit = {}});
  for (const config::WorkerConfig& worker : options_.config.workers) {
    processes_.push_back(
        {.kind = Kind::kWorker,
         .name = worker.name,
         .argv = {options_.bin_dir + "/kino-worker", "--config", file, "--name", worker.name},
         .backoff = backoff,
         .child = {},
         .started_at = {},
         .start_due = {},
         .last_pid = -1,
         .last_exit = {}});
  }
}

absl::Status Supervisor::SetUpSignals() {
  sigset_t watched;
  sigemptyset(&watched);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&watched, signal);
  if (sigprocmask(SIG_BLOCK, &watched, nullptr) != 0) {
    return absl::ErrnoToStatus(errno, "sigprocmask");
  }
  signals_ = Fd(signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_.is_open()) return absl::ErrnoToStatus(errno, "signalfd");
  return absl::OkStatus();
}

// The frontend renames <data_dir>/frontend.addr into its place as the last step of its start.
absl::Status Supervisor::WatchForAddress() {
  if (!options_.notifier.is_on()) return absl::OkStatus();
  address_ = Fd(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!address_.is_open()) return absl::ErrnoToStatus(errno, "inotify_init1");
  if (inotify_add_watch(address_.get(), options_.config.data_dir.c_str(), IN_MOVED_TO) < 0) {
    return absl::ErrnoToStatus(errno, "inotify_add_watch");
  }
  return absl::OkStatus();
}

void Supervisor::Start(Process& process) {
  Fd theirs;
  if (process.kind == Kind::kFrontend) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
      spdlog::error("{}: socketpair: {}", process.name, strerror(errno));
      process.start_due = Monotonic() + process.backoff.NextPause(absl::ZeroDuration());
      return;
    }
    control_ = Fd(ends[0]);
    theirs = Fd(ends[1]);
    fcntl(control_.get(), F_SETFL, O_NONBLOCK);
  }
  absl::StatusOr<Child> child = SpawnChild(process.argv, theirs.get());
  process.started_at = Monotonic();
  if (!child.ok()) {
    const absl::Duration pause = process.backoff.NextPause(absl::ZeroDuration());
    process.start_due = process.started_at + pause;
    spdlog::error("{}: {}; next try in {}", process.name, std::string(child.status().message()),
                  absl::FormatDuration(pause));
    return;
  }
  process.child = *std::move(child);
  spdlog::info("{}: started, pid {}", process.name, process.child.pid);
  if (process.kind == Kind::kWorker) {
    TellFrontend("start", process, /*has_exited=*/false);
    return;
  }
  // A new frontend knows of no worker. One that runs may have come back already; of the others it
  // hears how they ended.
  for (const Process& worker : processes_) {
    if (worker.kind != Kind::kWorker) continue;
    if (worker.is_running()) {
      TellFrontend("start", worker, /*has_exited=*/false);
    } else if (worker.last_pid > 0) {
      TellFrontend("past exit", worker, /*has_exited=*/true);
    }
  }
}

void Supervisor::TellFrontend(const std::string& what, const Process& worker, bool has_exited) {
  if (!control_.is_open()) return;
  config::ControlMessage message =
      config::WorkerStarted{.worker = worker.name, .pid = worker.child.pid};
  if (has_exited) {
    message = config::WorkerExited{.worker = worker.name,
                                   .pid = worker.last_pid,
                                   .signal = worker.last_exit.signal,
                                   .exit_code = worker.last_exit.exit_code};
  }
  const absl::Status sent = config::SendControl(control_.get(), message);
  // A frontend that is gone learns it when it starts again; leases are the backstop for one that
  // does not read.
  if (!sent.ok() && !absl::IsUnavailable(sent)) {
    spdlog::warn("{} of worker {} not told to the frontend: {}", what, worker.name,
                 std::string(sent.message()));
  }
}

void Supervisor::OnExit(Process& process) {
  const ExitReport report = CollectChild(process.child);
  const absl::Duration ran_for = Monotonic() - process.started_at;
  process.last_pid = process.child.pid;
  process.last_exit = report;
  process.child = Child{};
  const bool was_asked = is_stopping_;
  if (process.kind == Kind::kWorker) {
    TellFrontend("exit", process, /*has_exited=*/true);
  } else {
    control_.Reset();
    is_serving_ = false;
  }
  if (was_asked) {
    spdlog::info("{}: ended with {}", process.name, report.Text());
    return;
  }
  if (process.kind == Kind::kFrontend && report.signal == 0 &&
      report.exit_code == config::kExitUnusable) {
    result_ = absl::FailedPreconditionError(
        "kino-frontend cannot run with this configuration (see above); stopping");
    BeginStop("the frontend cannot run");
    return;
  }
  const absl::Duration pause = process.backoff.NextPause(ran_for);
  process.start_due = Monotonic() + pause;
  spdlog::warn("{}: pid {} ended with {} after {}; next start in {}", process.name,
               process.last_pid, report.Text(), absl::FormatDuration(ran_for),
               absl::FormatDuration(pause));
}

void Supervisor::OnSignal() {
  signalfd_siginfo info{};
  while (read(signals_.get(), &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
    // A terminal that closes, or somebody who wants the configuration read again: neither wants
    // the jobs to stop.
    if (info.ssi_signo == SIGHUP) {
      spdlog::warn("SIGHUP: nothing is read again; restart kinod for a changed configuration");
      continue;
    }
    if (is_stopping_) {
      spdlog::warn("second signal: killing what still runs");
      KillAll();
      continue;
    }
    BeginStop(absl::StrCat("signal ", info.ssi_signo));
  }
}

void Supervisor::BeginStop(const std::string& why) {
  if (is_stopping_) return;
  is_stopping_ = true;
  stop_reason_ = why;
  stop_deadline_ = Monotonic() + options_.config.supervisor.stop_deadline;
  spdlog::info("stopping: {}", why);
  if (control_.is_open()) {
    const absl::Status told = config::SendControl(control_.get(), config::MachineStopping{});
    if (!told.ok()) spdlog::warn("stop not told to the frontend: {}", std::string(told.message()));
  }
  // The frontend comes first in the list: it stops giving out work before the workers end.
  for (Process& process : processes_) {
    if (process.is_running()) SignalChild(process.child, SIGTERM);
  }
}

void Supervisor::KillAll() {
  for (Process& process : processes_) {
    if (process.is_running()) SignalChild(process.child, SIGKILL);
  }
}

void Supervisor::OnControl() {
  for (;;) {
    const absl::StatusOr<config::ControlMessage> message = config::ReceiveControl(control_.get());
    if (absl::IsNotFound(message.status())) return;
    if (absl::IsInvalidArgument(message.status())) {
      spdlog::error("{}", std::string(message.status().message()));
      continue;
    }
    if (!message.ok()) {
      // The frontend has closed its end; its pidfd tells the rest.
      control_.Reset();
      return;
    }
    const auto* kill = std::get_if<config::KillWorker>(&*message);
    if (kill == nullptr) {
      spdlog::error("the frontend sent a message that only kinod sends");
      continue;
    }
    const auto found = std::find_if(processes_.begin(), processes_.end(), [&](const Process& p) {
      return p.kind == Kind::kWorker && p.name == kill->worker && p.child.pid == kill->pid;
    });
    if (found == processes_.end()) {
      spdlog::info("worker {} with pid {} has ended already", kill->worker, kill->pid);
      continue;
    }
    spdlog::warn("killing worker {} (pid {}): the frontend found it stuck", kill->worker,
                 kill->pid);
    SignalChild(found->child, SIGKILL);
  }
}

void Supervisor::OnAddress() {
  alignas(inotify_event) char buffer[4096];
  ssize_t size = 0;
  while ((size = read(address_.get(), buffer, sizeof(buffer))) > 0) {
    for (ssize_t at = 0; at < size;) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
      at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
      if (event->len > 0 && std::string(event->name) == "frontend.addr") {
        is_serving_ = has_served_ = true;
      }
    }
  }
}

std::string Supervisor::StateLines() const {
  std::vector<std::string> running, down;
  int workers = 0;
  for (const Process& process : processes_) {
    workers += process.kind == Kind::kWorker ? 1 : 0;
    if (process.is_running()) {
      running.push_back(process.name);
    } else if (process.kind == Kind::kWorker) {
      down.push_back(process.name);
    }
  }
  if (is_stopping_) {
    return absl::StrCat("STOPPING=1\nSTATUS=stopping (", stop_reason_, "): ",
                        running.empty() ? "all have ended"
                                        : absl::StrCat("waits for ", absl::StrJoin(running, ", ")));
  }
  return absl::StrCat(has_served_ ? "READY=1\n" : "", "STATUS=",
                      is_serving_   ? "serving"
                      : has_served_ ? "kino-frontend starts again"
                                    : "kino-frontend starts",
                      "; ", workers - static_cast<int>(down.size()), " of ", workers,
                      " workers run",
                      down.empty() ? "" : absl::StrCat(", not ", absl::StrJoin(down, ", ")));
}

// Each message holds all there is to say, so that one that is lost, or read by a manager that has
// started anew, is mended by the next one. The watchdog stands for this loop alone: a child that
// hangs or ends costs less to mend from here than by the restart of everything.
void Supervisor::Notify() {
  const Notifier& notifier = options_.notifier;
  if (!notifier.is_on()) return;
  const absl::Duration now = Monotonic();
  const std::string state = StateLines();
  if (state == told_ && now < notify_due_) return;
  std::string message = state;
  if (notifier.watchdog() != absl::InfiniteDuration()) absl::StrAppend(&message, "\nWATCHDOG=1");
  if (is_stopping_) {
    // supervisor.stop_deadline holds, not the unit's TimeoutStopSec, where that is shorter.
    const absl::Duration rest =
        stop_deadline_ == absl::InfiniteDuration() ? absl::ZeroDuration() : stop_deadline_ - now;
    absl::StrAppend(&message, "\nEXTEND_TIMEOUT_USEC=",
                    absl::ToInt64Microseconds(std::max(rest, absl::ZeroDuration()) + kKillTime));
  }
  const absl::Status sent = notifier.Send(message);
  if (!sent.ok() && is_heard_) {
    spdlog::warn("the service manager is not told: {}", std::string(sent.message()));
  }
  is_heard_ = sent.ok();
  if (is_heard_) told_ = state;
  notify_due_ = now + (is_heard_ ? notifier.watchdog() / 2 : kNotifyRetry);
}

bool Supervisor::AnyRunning() const {
  return std::any_of(processes_.begin(), processes_.end(),
                     [](const Process& process) { return process.is_running(); });
}

absl::Duration Supervisor::NextWakeUp() const {
  if (is_stopping_) return std::min(stop_deadline_, notify_due_);
  absl::Duration due = notify_due_;
  for (const Process& process : processes_) {
    if (!process.is_running()) due = std::min(due, process.start_due);
  }
  return due;
}

absl::Status Supervisor::Run() {
  absl::Status ready = SetUpSignals();
  if (ready.ok()) ready = WatchForAddress();
  if (!ready.ok()) return ready;
  while (!is_stopping_ || AnyRunning()) {
    if (!is_stopping_) {
      for (Process& process : processes_) {
        if (!process.is_running() && process.start_due <= Monotonic()) Start(process);
      }
    }
    Notify();
    std::vector<pollfd> fds = {{.fd = signals_.get(), .events = POLLIN, .revents = 0},
                               {.fd = control_.get(), .events = POLLIN, .revents = 0},
                               {.fd = address_.get(), .events = POLLIN, .revents = 0}};
    const size_t first_child = fds.size();
    std::vector<Process*> watched;
    for (Process& process : processes_) {
      if (!process.is_running()) continue;
      fds.push_back({.fd = process.child.pidfd.get(), .events = POLLIN, .revents = 0});
      watched.push_back(&process);
    }
    const absl::Duration wait = std::max(NextWakeUp() - Monotonic(), absl::ZeroDuration());
    const int timeout_ms = wait == absl::InfiniteDuration()
                               ? -1
                               : static_cast<int>(absl::ToInt64Milliseconds(
                                     std::min(wait, absl::Hours(1)) + absl::Milliseconds(1)));
    if (poll(fds.data(), fds.size(), timeout_ms) < 0 && errno != EINTR) {
      return absl::ErrnoToStatus(errno, "poll");
    }
    if (fds[0].revents != 0) OnSignal();
    if (fds[1].revents != 0 && control_.is_open()) OnControl();
    // Before exits: a frontend that has ended since does not serve.
    if (fds[2].revents != 0) OnAddress();
    for (size_t i = 0; i < watched.size(); ++i) {
      if (fds[i + first_child].revents != 0) OnExit(*watched[i]);
    }
    if (is_stopping_ && Monotonic() >= stop_deadline_ && AnyRunning()) {
      spdlog::warn("the deadline for stopping has passed: killing what still runs");
      KillAll();
      stop_deadline_ = absl::InfiniteDuration();
    }
  }
  Notify();
  return result_;
}

}  // namespace kino::supervisor
