// The one place where exceptions become absl::Status. torch throws inside the engine; nothing
// throws out of it.
#pragma once

#include <c10/core/Device.h>

#include <stdexcept>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kino::engine {

// Thrown inside the engine where a status must cross code that returns tensors; RunGuarded turns it
// back.
class StatusError : public std::exception {
 public:
  explicit StatusError(absl::Status status)
      : status_(std::move(status)), message_(status_.ToString()) {}
  const absl::Status& status() const { return status_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  absl::Status status_;
  std::string message_;
};

// Throws unless OK.
void ThrowIfError(const absl::Status& status);
template <typename T>
T ValueOrThrow(absl::StatusOr<T> value) {
  ThrowIfError(value.status());
  return *std::move(value);
}

// Runs `body` in inference mode. Out of memory (host or device) is RESOURCE_EXHAUSTED with the
// payload kOutOfMemoryPayload, an accelerator error INTERNAL with the payload kDeviceLostPayload, a
// missing kernel UNIMPLEMENTED, any other c10::Error or std::exception INTERNAL with a short
// message (the backtrace goes to the log).
absl::Status RunGuarded(absl::FunctionRef<absl::Status()> body);
// The same with `device` the current one: a thread's current device is its own, and any thread may
// drive an engine.
absl::Status RunGuarded(c10::Device device, absl::FunctionRef<absl::Status()> body);

// Set on a status after which the device is of no use to this process.
inline constexpr char kDeviceLostPayload[] = "kino/device_lost";
// Set on a status that says that memory ran out, and no quota or disk.
inline constexpr char kOutOfMemoryPayload[] = "kino/out_of_memory";

}  // namespace kino::engine
