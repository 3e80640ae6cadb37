#include "server/supervisor/notify.h"

#include <errno.h>
#include <spdlog/spdlog.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace kino::supervisor {
namespace {

std::string Take(const char* name) {
  const char* const value = std::getenv(name);
  std::string taken = value == nullptr ? "" : value;
  unsetenv(name);
  return taken;
}

}  // namespace

Notifier Notifier::TakeFromEnvironment() {
  std::string address = Take("NOTIFY_SOCKET");
  const std::string watchdog = Take("WATCHDOG_USEC");
  const std::string watched = Take("WATCHDOG_PID");
  Notifier notifier;
  if (address.empty()) return notifier;
  if ((address[0] != '/' && address[0] != '@') || address.size() < 2 ||
      address.size() > sizeof(sockaddr_un::sun_path)) {
    spdlog::warn("$NOTIFY_SOCKET is neither a path nor '@name': the service manager is not told");
    return notifier;
  }
  if (address[0] == '@') address[0] = 0;
  notifier.socket_ = Fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!notifier.socket_.is_open()) {
    spdlog::warn("the service manager is not told: {}", strerror(errno));
    return notifier;
  }
  notifier.address_ = std::move(address);
  int64_t microseconds = 0;
  if (absl::SimpleAtoi(watchdog, &microseconds) && microseconds > 0 &&
      (watched.empty() || watched == absl::StrCat(getpid()))) {
    notifier.watchdog_ = absl::Microseconds(microseconds);
  }
  return notifier;
}

absl::Status Notifier::Send(const std::string& lines) const {
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  memcpy(to.sun_path, address_.data(), address_.size());
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address_.size());
  // The socket is not connected: a manager that executes itself anew listens on another one.
  while (sendto(socket_.get(), lines.data(), lines.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
                reinterpret_cast<const sockaddr*>(&to), size) < 0) {
    if (errno != EINTR) return absl::UnavailableError(strerror(errno));
  }
  return absl::OkStatus();
}

}  // namespace kino::supervisor
