// What one watcher of a job is told next: states from the durable log, progress as the latest there
// is, bytes from the attempt's file at the reader's own pace. It holds a place (state number,
// attempt, offset) and no queue, so a slow reader costs nothing. Knows no gRPC: a stream of any
// protocol takes event after event from it.
//
// Used by one thread at a time. Begin and Take block on the store and on files.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kino/v1/video.pb.h"
#include "scheduler/jobs/job.h"
#include "scheduler/store/job_store.h"
#include "server/frontend/artifacts/file_store.h"
#include "server/frontend/metrics/metrics.h"
#include "server/frontend/watch/hub.h"
#include "server/frontend/watch/queue_view.h"

namespace kino::frontend {

// All outlive the cursor.
struct WatchSources {
  scheduler::JobStore& store;
  FileStore& files;
  WatchHub& hub;
  QueueView& queue;
  Metrics& metrics;
  const scheduler::Clock& clock;
  // How long the server keeps results of jobs that say nothing of it.
  absl::Duration result_ttl;
};

class WatchCursor {
 public:
  enum class Next {
    kEvent,
    kNothing,  // until the reader is woken
    kEnd,      // the last event was taken before
  };

  WatchCursor(const WatchSources& sources, std::string tenant, v1::WatchJobRequest from);
  // The reader is woken no more.
  ~WatchCursor();
  WatchCursor(const WatchCursor&) = delete;
  WatchCursor& operator=(const WatchCursor&) = delete;

  // Goes to where the request left off. From here on `reader` is woken whenever there may be
  // something to take. NOT_FOUND; OUT_OF_RANGE: a place past what there is; INVALID_ARGUMENT.
  // REQUIRES: called once, before Take.
  absl::Status Begin(const std::shared_ptr<Wakeable>& reader);

  // Fills `event` when there is one. UNAVAILABLE (reason GOING_AWAY) when the server stops; the
  // details say where to go on.
  absl::StatusOr<Next> Take(v1::JobEvent& event);

  // A request that goes on behind the last event taken.
  v1::WatchJobRequest ResumePoint() const;

 private:
  absl::Status CheckPlace(const scheduler::Job& job) const;
  absl::StatusOr<bool> NextState(const LiveView& live, v1::JobEvent& event);
  bool NextProgress(const LiveView& live, v1::JobEvent& event);
  bool NextStanding(const LiveView& live, v1::JobEvent& event);
  absl::StatusOr<bool> NextChunk(const LiveView& live, v1::JobEvent& event);
  absl::StatusOr<bool> NextFinished(v1::JobEvent& event);
  void EnterState(v1::JobState state, int attempt);
  absl::Status ReadJob();
  absl::Status GoingAway() const;

  const WatchSources sources_;
  const std::string tenant_;
  const v1::WatchJobRequest request_;
  const Wakeable* reader_ = nullptr;  // while it is subscribed
  bool has_unread_states_ = true;
  bool is_at_end_ = false;
  int64_t state_number_ = 0;
  v1::JobState state_ = v1::JOB_STATE_UNSPECIFIED;
  int attempt_ = 0;
  int64_t offset_ = 0;
  int64_t progress_version_ = 0;
  std::optional<Standing> first_standing_;  // before the hub knows one
  std::optional<Standing> told_standing_;
  bool was_progress_ = false;
  std::optional<scheduler::Job> job_;  // once it has ended
  std::shared_ptr<const VideoFile> file_;
};

}  // namespace kino::frontend
