// The frontend's end of the socketpair to kinod: one thread reads what became of workers, Kill asks
// for one to be killed. Thread-safe. Owns the descriptor and the thread.
#pragma once

#include <functional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "server/config/control.h"

namespace kino::frontend {

class ControlLink {
 public:
  // `on_message` runs on the link's thread and must be quick. When kinod is gone, `on_message` is
  // called no more.
  ControlLink(int fd, std::function<void(const config::ControlMessage&)> on_message);
  ~ControlLink();
  ControlLink(const ControlLink&) = delete;
  ControlLink& operator=(const ControlLink&) = delete;

  absl::Status Kill(const std::string& worker, int pid);

 private:
  const int fd_;
  std::thread thread_;
};

}  // namespace kino::frontend
