#include "scheduler/status.h"

#include <gtest/gtest.h>

namespace kino::scheduler {
namespace {

TEST(StatusTest, ReasonTravelsWithTheStatus) {
  const absl::Status status = WithReason(absl::AbortedError("no"), kReasonStaleAttempt);
  EXPECT_EQ(ReasonOf(status), "STALE_ATTEMPT");
  EXPECT_TRUE(IsStaleAttempt(status));
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
}

TEST(StatusTest, PlainStatusHasNoReason) {
  EXPECT_EQ(ReasonOf(absl::AbortedError("no")), "");
  EXPECT_FALSE(IsStaleAttempt(absl::AbortedError("no")));
  EXPECT_EQ(ReasonOf(absl::OkStatus()), "");
}

}  // namespace
}  // namespace kino::scheduler
