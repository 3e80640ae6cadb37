#include "server/supervisor/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace kino::supervisor {
namespace {

// Runs in the child between fork and exec. `report` is closed by a successful exec, else gets
// errno.
[[noreturn]] void BecomeChild(char* const* argv, int inherited_fd, int report, pid_t parent) {
  const auto fail = [report](int error) {
    [[maybe_unused]] const ssize_t n = write(report, &error, sizeof(error));
    _exit(127);
  };
  // A process group of its own: Ctrl-C in a terminal reaches the supervisor only, which then stops
  // all in order.
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  // As kinod itself: what it means elsewhere (read everything again, or end) nobody here does.
  signal(SIGHUP, SIG_IGN);
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail(errno);
  if (getppid() != parent) _exit(127);  // the parent died before the request above took hold
  const int null = open("/dev/null", O_RDONLY);
  if (null >= 0) {
    dup2(null, STDIN_FILENO);
    if (null != STDIN_FILENO) close(null);
  }
  if (inherited_fd >= 0) {
    if (inherited_fd == 3) {
      if (fcntl(3, F_SETFD, 0) != 0) fail(errno);
    } else if (dup2(inherited_fd, 3) < 0) {
      fail(errno);
    }
  }
  execv(argv[0], argv);
  fail(errno);
  _exit(127);
}

}  // namespace

Fd& Fd::operator=(Fd&& other) noexcept {
  if (this != &other) {
    Reset();
    fd_ = other.Release();
  }
  return *this;
}

int Fd::Release() { return std::exchange(fd_, -1); }

void Fd::Reset() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

std::string ExitReport::Text() const {
  if (signal != 0) return absl::StrCat("signal ", signal, " (", strsignal(signal), ")");
  return absl::StrCat("exit code ", exit_code);
}

absl::StatusOr<Child> SpawnChild(const std::vector<std::string>& argv, int inherited_fd) {
  std::vector<char*> pointers;
  for (const std::string& argument : argv) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);

  // Tells whether exec worked. At 10 or above, so that it does not lie on descriptor 3.
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "pipe2");
  const Fd read_end(ends[0]);
  Fd write_end(fcntl(ends[1], F_DUPFD_CLOEXEC, 10));
  close(ends[1]);
  if (!write_end.is_open()) return absl::ErrnoToStatus(errno, "fcntl");

  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return absl::ErrnoToStatus(errno, "fork");
  if (pid == 0) BecomeChild(pointers.data(), inherited_fd, write_end.get(), parent);
  write_end.Reset();
  int error = 0;
  ssize_t n = 0;
  do {
    n = read(read_end.get(), &error, sizeof(error));
  } while (n < 0 && errno == EINTR);
  if (n == static_cast<ssize_t>(sizeof(error))) {
    waitpid(pid, nullptr, 0);
    return absl::ErrnoToStatus(error, absl::StrCat("cannot run '", argv[0], "'"));
  }
  // Not yet collected, so the number is still this child's.
  Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd.is_open()) {
    error = errno;
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return absl::ErrnoToStatus(error, "pidfd_open");
  }
  fcntl(pidfd.get(), F_SETFD, FD_CLOEXEC);
  return Child{.pid = pid, .pidfd = std::move(pidfd)};
}

ExitReport CollectChild(const Child& child) {
  int status = 0;
  while (waitpid(child.pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status)) return {.signal = WTERMSIG(status), .exit_code = 0};
  return {.signal = 0, .exit_code = WEXITSTATUS(status)};
}

void SignalChild(const Child& child, int signal) {
  if (child.pidfd.is_open()) {
    syscall(SYS_pidfd_send_signal, child.pidfd.get(), signal, nullptr, 0);
  }
}

}  // namespace kino::supervisor
