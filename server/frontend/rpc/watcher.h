// One client that watches a job: a cursor (state number, attempt, byte offset) and one write in
// flight, nothing else. States come from the durable log, progress is the latest there is, bytes
// are read from the attempt's file at the client's own pace; so a slow or stalled client costs
// nothing, and ending the watch changes nothing.
//
// gRPC's reactions only post; the work is done on the watch executor, one step at a time per
// watcher. Lives until OnDone and until the last posted step has run.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "kino/v1/video.pb.h"
#include "server/frontend/rpc/context.h"
#include "server/frontend/watch/hub.h"

namespace kino::frontend {

class Watcher final : public grpc::ServerWriteReactor<v1::JobEvent>,
                      public Wakeable,
                      public std::enable_shared_from_this<Watcher> {
 public:
  // gRPC owns what these return until the stream is done; then `context` may go.
  static Watcher* Watch(const Context& context, std::string tenant, v1::WatchJobRequest request);
  // Submits first; the watch begins at the job's first state.
  static Watcher* Generate(const Context& context, std::string tenant, v1::GenerateRequest request);
  // A stream that only ends.
  static Watcher* Refuse(const Context& context, const absl::Status& status);

  void Wake() override;

 private:
  Watcher(const Context& context, std::string tenant, v1::WatchJobRequest request)
      : context_(context), tenant_(std::move(tenant)), request_(std::move(request)) {}
  static Watcher* Own(std::shared_ptr<Watcher> watcher);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  // Steps; on the watch executor.
  void PostStep();
  void Step();
  absl::Status Begin();
  // What to send next; nothing: wait to be woken. An error ends the stream.
  absl::StatusOr<bool> NextEvent();
  absl::StatusOr<bool> NextState(const LiveView& live);
  bool NextProgress(const LiveView& live);
  absl::StatusOr<bool> NextChunk(const LiveView& live);
  absl::StatusOr<bool> NextFinished();
  void EnterState(v1::JobState state, int attempt);
  absl::Status ReadJob();
  absl::Status GoingAway() const;
  void End(const absl::Status& status);

  const Context& context_;
  const std::string tenant_;
  v1::WatchJobRequest request_;
  std::optional<v1::GenerateRequest> to_submit_;
  std::shared_ptr<Watcher> self_;  // until OnDone

  // The step's own.
  bool has_begun_ = false;
  bool has_ended_ = false;
  bool is_last_event_ = false;
  bool has_unread_states_ = true;
  bool is_subscribed_ = false;
  int64_t state_number_ = 0;
  v1::JobState state_ = v1::JOB_STATE_UNSPECIFIED;
  int attempt_ = 0;
  int64_t offset_ = 0;
  int64_t progress_version_ = 0;
  int64_t queue_version_ = -1;
  bool was_progress_ = false;
  std::optional<scheduler::Job> job_;  // once it has ended
  std::shared_ptr<const VideoFile> file_;
  v1::JobEvent event_;

  absl::Mutex mutex_;
  bool is_busy_ ABSL_GUARDED_BY(mutex_) = true;  // a step is posted or running, or a write is out
  bool is_woken_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace kino::frontend
