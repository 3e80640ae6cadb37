#include "scheduler/status.h"

#include "absl/strings/cord.h"

namespace kino::scheduler {

namespace {
constexpr char kReasonUrl[] = "kino.v1/reason";
}  // namespace

absl::Status WithReason(absl::Status status, const char* reason) {
  status.SetPayload(kReasonUrl, absl::Cord(reason));
  return status;
}

std::string ReasonOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kReasonUrl);
  return payload.has_value() ? std::string(*payload) : std::string();
}

}  // namespace kino::scheduler
