#include "scheduler/queue/admission.h"

#include <gtest/gtest.h>

#include "scheduler/status.h"

namespace kino::scheduler {
namespace {

NewJob GoodJob() {
  NewJob job;
  job.tenant = "default";
  job.model = "ltx";
  job.request = "request";
  return job;
}

TEST(AdmissionTest, GoodJobEntersUntilTheQueueIsFull) {
  const AdmissionLimits limits{.max_queued_jobs = 3};
  EXPECT_TRUE(CheckAdmission(limits, {.all = 2}, GoodJob()).ok());
  const absl::Status full = CheckAdmission(limits, {.all = 3}, GoodJob());
  EXPECT_TRUE(absl::IsResourceExhausted(full)) << full;
  EXPECT_EQ(ReasonOf(full), kReasonQueueFull);
}

TEST(AdmissionTest, RequestLargerThanTheLimitIsRefused) {
  NewJob job = GoodJob();
  job.request.assign(100, 'x');
  EXPECT_TRUE(CheckAdmission({.max_request_bytes = 100}, {.all = 0}, job).ok());
  const absl::Status refused = CheckAdmission({.max_request_bytes = 99}, {.all = 0}, job);
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_EQ(ReasonOf(refused), kReasonRequestTooLarge);
}

TEST(AdmissionTest, MalformedRecordsAreRefused) {
  NewJob job = GoodJob();
  job.tenant = "";
  EXPECT_TRUE(absl::IsInvalidArgument(CheckAdmission({}, {.all = 0}, job)));
  job = GoodJob();
  job.model = "";
  EXPECT_TRUE(absl::IsInvalidArgument(CheckAdmission({}, {.all = 0}, job)));
  job = GoodJob();
  job.priority = static_cast<Priority>(4);
  EXPECT_TRUE(absl::IsInvalidArgument(CheckAdmission({}, {.all = 0}, job)));
  job = GoodJob();
  job.start_timeout = absl::ZeroDuration();
  EXPECT_TRUE(absl::IsInvalidArgument(CheckAdmission({}, {.all = 0}, job)));
  job = GoodJob();
  job.run_timeout = -absl::Seconds(1);
  EXPECT_TRUE(absl::IsInvalidArgument(CheckAdmission({}, {.all = 0}, job)));
}

TEST(AdmissionTest, ATenantsQueueHasALimitOfItsOwn) {
  const AdmissionLimits limits{.max_queued_jobs = 10, .max_tenant_queued_jobs = 2};
  EXPECT_TRUE(CheckAdmission(limits, {.all = 9, .of_tenant = 1}, GoodJob()).ok());
  const absl::Status full = CheckAdmission(limits, {.all = 9, .of_tenant = 2}, GoodJob());
  EXPECT_TRUE(absl::IsResourceExhausted(full));
  EXPECT_EQ(ReasonOf(full), "TENANT_QUEUE_FULL");
  EXPECT_TRUE(CheckAdmission({.max_queued_jobs = 10}, {.all = 9, .of_tenant = 9}, GoodJob()).ok());
}

}  // namespace
}  // namespace kino::scheduler
