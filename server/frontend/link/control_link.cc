#include "server/frontend/link/control_link.h"

#include <pthread.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

namespace kino::frontend {

ControlLink::ControlLink(int fd, std::function<void(const config::ControlMessage&)> on_message)
    : fd_(fd), thread_([fd, on_message = std::move(on_message)] {
        pthread_setname_np(pthread_self(), "control");
        for (;;) {
          const absl::StatusOr<config::ControlMessage> message = config::ReceiveControl(fd);
          if (message.ok()) {
            on_message(*message);
          } else if (absl::IsInvalidArgument(message.status())) {
            spdlog::error("kinod: {}", std::string(message.status().message()));
          } else {
            return;
          }
        }
      }) {}

ControlLink::~ControlLink() {
  // Wakes the reading thread.
  shutdown(fd_, SHUT_RDWR);
  thread_.join();
  close(fd_);
}

absl::Status ControlLink::Kill(const std::string& worker, int pid) {
  return config::SendControl(fd_, config::KillWorker{.worker = worker, .pid = pid});
}

}  // namespace kino::frontend
