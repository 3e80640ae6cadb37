// What the scheduler knows of a job. Plain values. Request, plan and statistics are opaque bytes
// here: the scheduler knows no protobuf. Numbers of JobState and Priority are those of
// proto/kino/v1/video.proto and of the store's rows.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace kino::scheduler {

enum class JobState : int {
  kQueued = 1,
  kRunning = 2,
  kSucceeded = 3,
  kFailed = 4,
  kCancelled = 5,
  kQuarantined = 6,  // ended its worker too often; kept for a look, not run again
  kExpired = 7,      // not started in time
};
inline constexpr JobState kAllJobStates[] = {
    JobState::kQueued,    JobState::kRunning,     JobState::kSucceeded, JobState::kFailed,
    JobState::kCancelled, JobState::kQuarantined, JobState::kExpired};
const char* JobStateName(JobState state);  // "QUEUED", ...
constexpr bool IsTerminal(JobState state) {
  return state != JobState::kQueued && state != JobState::kRunning;
}

enum class Priority : int { kLow = 1, kNormal = 2, kHigh = 3 };
inline constexpr Priority kPrioritiesHighestFirst[] = {Priority::kHigh, Priority::kNormal,
                                                       Priority::kLow};
const char* PriorityName(Priority priority);  // "NORMAL", ...

// Why an attempt ended without a result. What follows from each is decided in
// scheduler/jobs/retry.h alone.
enum class FailureCause : int {
  kNone = 0,
  kClient = 1,        // the request itself cannot be run
  kOutOfMemory = 2,   // the device or the host has too little memory
  kModel = 3,         // the model's files are broken or missing
  kInternal = 4,      // anything else
  kInterrupted = 5,   // drained, deployed, never started: our doing, not the job's
  kCrash = 6,         // the worker process died while it ran the job
  kHang = 7,          // no progress; the worker was killed
  kLeaseLost = 8,     // the worker went silent; whether it died is not known
  kCancelled = 9,     // stopped because cancelling was asked for
  kRunTimeout = 10,   // ran longer than run_timeout
  kDiskFull = 11,     // no room for its bytes: nobody's fault
  kDeviceLost = 12,   // the accelerator failed while it ran the job
  kUncleanStop = 13,  // everything stopped at once while it ran: a power cut, kinod killed
};
const char* FailureCauseName(FailureCause cause);  // "OUT_OF_MEMORY", ...

// Stages of a run that the scheduler knows: numbers of proto/kino/v1/video.proto's Stage.
// Behind something else on its worker. While that is another attempt, waiting is no hang.
inline constexpr int kStageWaiting = 0;
inline constexpr int kStageLoad = 1;
inline constexpr int kStageDenoise = 4;  // the one whose steps a request asks for

// Names one attempt and proves the right to speak for it.
struct AttemptRef {
  std::string job_id{};
  int attempt = 0;      // from 1
  std::string token{};  // 32 lower-case hexadecimal digits
  bool operator==(const AttemptRef&) const = default;
};

struct Attempt {
  int number = 0;  // from 1
  std::string token{};
  std::string worker{};
  absl::Time start_time{};
  std::optional<absl::Time> end_time{};
  // Both unset for the attempt that succeeded or still runs.
  absl::Status error{};
  FailureCause cause = FailureCause::kNone;
  // Opaque: what is known of a worker's death (where the run was, the signal). Empty: nothing.
  std::string evidence{};
};

struct Artifact {
  std::string content_type{};
  int64_t size_bytes = 0;
  std::string sha256{};
  int width = 0;
  int height = 0;
  int num_frames = 0;
  double fps = 0;
  std::string file_name{};  // server-made, relative to the artifact folder
};

// What the counts below limit is in RetryPolicy.
struct FailureCounts {
  int crashes = 0;  // kCrash, kHang and kDeviceLost
  int out_of_memory = 0;
  int interruptions = 0;  // kInterrupted, kDiskFull and kUncleanStop: attempts that do not count
  int unclean_stops = 0;
};

// How much work a run is: what its length is estimated from (scheduler/queue/run_history.h).
struct JobWork {
  // Opaque. Jobs of one model with equal shapes take the same time for a step. Empty: not known.
  std::string shape{};
  int steps = 0;
  double flops = 0;  // floating-point operations of all stages; 0: not known
  bool operator==(const JobWork&) const = default;
};

// Interruptions are free, so a job may have any number of attempts. Older ones stay in the store.
inline constexpr int kAttemptsTold = 100;

struct Job {
  std::string id{};
  std::string tenant{};
  std::string model{};
  Priority priority = Priority::kNormal;
  std::map<std::string, std::string> labels{};
  std::string request{};              // opaque
  std::string request_fingerprint{};  // equal fingerprints mean the same request
  std::string request_id{};           // empty: none
  std::vector<std::string> asset_ids{};
  std::string server_version{};

  JobState state = JobState::kQueued;
  int64_t state_number = 0;  // number of the last StateEvent
  bool cancel_requested = false;
  std::vector<Attempt> attempts{};  // the latest kAttemptsTold, in order
  FailureCounts failures{};
  absl::Time create_time{};
  std::optional<absl::Time> start_time{};  // of the first attempt
  std::optional<absl::Time> end_time{};
  absl::Duration start_timeout =
      absl::InfiniteDuration();  // limits time in the queue, over all attempts
  absl::Duration run_timeout = absl::InfiniteDuration();  // limits one attempt
  // How long its artifact is kept after the end; none: as long as the server keeps them.
  std::optional<absl::Duration> result_ttl{};
  JobWork work{};
  std::optional<absl::Time> retry_not_before{};  // back-off of a requeued job
  // Not OK on FAILED, QUARANTINED, EXPIRED. A store keeps code, message and reason
  // (scheduler/status.h), no other payload.
  absl::Status error{};
  std::optional<Artifact> artifact{};  // on SUCCEEDED until it is purged
  bool artifact_purged = false;
  std::string stats{};  // opaque: of the attempt that ran last
};

// A QUEUED job, as the queue and the policy need it.
struct QueuedJob {
  std::string id{};
  std::string model{};
  Priority priority = Priority::kNormal;
  int64_t order = 0;  // of submission; kept when the job is queued again
  absl::Time retry_not_before = absl::InfinitePast();
  absl::Time start_deadline = absl::InfiniteFuture();
  std::string tenant{};
  JobWork work{};
};

// A submission. Text is UTF-8 without NUL; the frontend has checked formats and sizes of fields.
struct NewJob {
  std::string id{};  // empty: the store makes one (MakeId)
  std::string tenant{};
  std::string model{};
  Priority priority = Priority::kNormal;
  std::map<std::string, std::string> labels{};
  std::string request{};
  std::string request_fingerprint{};
  std::string request_id{};
  std::vector<std::string> asset_ids{};
  std::string server_version{};
  absl::Duration start_timeout = absl::InfiniteDuration();
  absl::Duration run_timeout = absl::InfiniteDuration();
  std::optional<absl::Duration> result_ttl{};
  JobWork work{};
};

// An uploaded input.
struct Asset {
  std::string id{};  // made by the caller with MakeId
  std::string tenant{};
  int64_t size_bytes = 0;
  std::string sha256{};
  std::string content_type{};
  int width = 0;
  int height = 0;
  int num_frames = 0;
  double fps = 0;            // of a video that says it; else 0
  absl::Time create_time{};  // set by the store
  std::string file_name{};   // server-made, relative to the asset folder
};

}  // namespace kino::scheduler
