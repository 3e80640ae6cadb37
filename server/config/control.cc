#include "server/config/control.h"

#include <errno.h>
#include <sys/socket.h>

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/config/config.h"

namespace kino::config {
namespace {

constexpr size_t kMaxPacketBytes = 512;

}  // namespace

std::string EncodeControl(const ControlMessage& message) {
  if (const auto* started = std::get_if<WorkerStarted>(&message)) {
    return absl::StrCat("started ", started->worker, " ", started->pid);
  }
  if (const auto* exited = std::get_if<WorkerExited>(&message)) {
    return absl::StrCat("exited ", exited->worker, " ", exited->pid, " ", exited->signal, " ",
                        exited->exit_code);
  }
  if (std::holds_alternative<MachineStopping>(message)) return "stopping";
  const auto& kill = std::get<KillWorker>(message);
  return absl::StrCat("kill ", kill.worker, " ", kill.pid);
}

absl::StatusOr<ControlMessage> DecodeControl(const std::string& packet) {
  const std::vector<std::string> words = absl::StrSplit(packet, ' ');
  if (packet == "stopping") return MachineStopping{};
  const absl::Status bad = absl::InvalidArgumentError(absl::StrCat(
      "control message: expected 'started|exited|kill worker pid ...', got '", packet, "'"));
  if (words.size() < 3 || !IsValidName(words[1])) return bad;
  std::vector<int> numbers;
  for (size_t i = 2; i < words.size(); ++i) {
    int value = 0;
    if (!absl::SimpleAtoi(words[i], &value) || value < 0) return bad;
    numbers.push_back(value);
  }
  if (words[0] == "started" && numbers.size() == 1) {
    return WorkerStarted{.worker = words[1], .pid = numbers[0]};
  }
  if (words[0] == "exited" && numbers.size() == 3) {
    return WorkerExited{
        .worker = words[1], .pid = numbers[0], .signal = numbers[1], .exit_code = numbers[2]};
  }
  if (words[0] == "kill" && numbers.size() == 1) {
    return KillWorker{.worker = words[1], .pid = numbers[0]};
  }
  return bad;
}

absl::Status SendControl(int fd, const ControlMessage& message) {
  const std::string packet = EncodeControl(message);
  while (send(fd, packet.data(), packet.size(), MSG_NOSIGNAL) < 0) {
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return absl::ResourceExhaustedError("the control socket is full");
    }
    return absl::UnavailableError("the other end of the control socket is gone");
  }
  return absl::OkStatus();
}

absl::StatusOr<ControlMessage> ReceiveControl(int fd) {
  char buffer[kMaxPacketBytes];
  for (;;) {
    const ssize_t size = recv(fd, buffer, sizeof(buffer), 0);
    if (size > 0) return DecodeControl(std::string(buffer, static_cast<size_t>(size)));
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      return absl::NotFoundError("no control message now");
    }
    return absl::UnavailableError("the other end of the control socket is gone");
  }
}

}  // namespace kino::config
