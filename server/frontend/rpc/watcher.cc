#include "server/frontend/rpc/watcher.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "server/convert/status.h"
#include "server/frontend/rpc/errors.h"
#include "server/frontend/rpc/job_view.h"
#include "server/frontend/rpc/submission.h"

namespace kino::frontend {
namespace {

// With the message's other fields below what a write may hold.
constexpr int64_t kChunkBytes = int64_t{255} * 1024;
constexpr int kMaxEventsOfAJob = 1000;

bool HasEnded(v1::JobState state) {
  return state != v1::JOB_STATE_UNSPECIFIED && state != v1::QUEUED && state != v1::RUNNING;
}

}  // namespace

Watcher* Watcher::Own(std::shared_ptr<Watcher> watcher) {
  Watcher* out = watcher.get();
  out->self_ = std::move(watcher);
  return out;
}

Watcher* Watcher::Watch(const Context& context, std::string tenant, v1::WatchJobRequest request) {
  Watcher* watcher =
      Own(std::shared_ptr<Watcher>(new Watcher(context, std::move(tenant), std::move(request))));
  watcher->PostStep();
  return watcher;
}

Watcher* Watcher::Generate(const Context& context, std::string tenant,
                           v1::GenerateRequest request) {
  Watcher* watcher = Own(std::shared_ptr<Watcher>(new Watcher(context, std::move(tenant), {})));
  const bool has_inline_media =
      std::any_of(request.conditions().begin(), request.conditions().end(),
                  [](const v1::Condition& condition) { return condition.has_data(); });
  watcher->to_submit_ = std::move(request);
  Executor& executor = has_inline_media ? context.media : context.rpc;
  executor.Post([self = watcher->shared_from_this()] { self->Step(); });
  return watcher;
}

Watcher* Watcher::Refuse(const Context& context, const absl::Status& status) {
  Watcher* watcher = Own(std::shared_ptr<Watcher>(new Watcher(context, "", {})));
  watcher->End(status);
  return watcher;
}

void Watcher::PostStep() {
  context_.watch.Post([self = shared_from_this()] { self->Step(); });
}

void Watcher::Wake() {
  {
    absl::MutexLock lock(&mutex_);
    if (is_busy_) {
      is_woken_ = true;
      return;
    }
    is_busy_ = true;
  }
  PostStep();
}

void Watcher::OnWriteDone(bool ok) {
  if (!ok) {
    absl::MutexLock lock(&mutex_);
    is_cancelled_ = true;
  }
  // Still busy: the step after a write.
  PostStep();
}

void Watcher::OnCancel() {
  {
    absl::MutexLock lock(&mutex_);
    is_cancelled_ = true;
  }
  Wake();
}

void Watcher::OnDone() {
  if (is_subscribed_) context_.hub.Unsubscribe(request_.id(), this);
  std::shared_ptr<Watcher> self = std::move(self_);
}

void Watcher::End(const absl::Status& status) {
  has_ended_ = true;
  // is_busy_ stays set, so that nothing wakes it again.
  Finish(ToGrpc(status));
}

void Watcher::Step() {
  if (has_ended_) return;
  for (;;) {
    bool is_cancelled = false;
    {
      absl::MutexLock lock(&mutex_);
      is_woken_ = false;
      is_cancelled = is_cancelled_;
    }
    if (is_cancelled) return End(absl::CancelledError("the watch was cancelled"));
    if (is_last_event_) return End(absl::OkStatus());
    if (!has_begun_) {
      const absl::Status begun = Begin();
      if (!begun.ok()) return End(begun);
      has_begun_ = true;
    }
    const absl::StatusOr<bool> has_event = NextEvent();
    if (!has_event.ok()) return End(has_event.status());
    if (*has_event) {
      event_.set_job_id(request_.id());
      StartWrite(&event_);
      return;
    }
    absl::MutexLock lock(&mutex_);
    if (is_woken_) continue;
    is_busy_ = false;
    return;
  }
}

absl::Status Watcher::Begin() {
  if (to_submit_.has_value()) {
    absl::StatusOr<scheduler::NewJob> job = PrepareJob(context_, tenant_, *to_submit_);
    if (!job.ok()) return job.status();
    const absl::StatusOr<scheduler::SubmitResult> submitted =
        context_.store.Submit(*std::move(job));
    if (!submitted.ok()) return submitted.status();
    request_.set_id(submitted->job.id);
    to_submit_.reset();
  }
  if (request_.after_state_number() < 0 || request_.offset() < 0 || request_.attempt() < 0) {
    return convert::InvalidRequest(
        {{"after_state_number, attempt, offset", "expected no negative number"}});
  }
  // Before the first look, so that no change falls between the two.
  context_.hub.Subscribe(request_.id(), shared_from_this());
  is_subscribed_ = true;
  const absl::StatusOr<scheduler::Job> job = context_.store.Get(tenant_, request_.id());
  if (!job.ok()) return job.status();
  if (request_.after_state_number() > job->state_number) {
    return absl::OutOfRangeError(absl::StrCat("after_state_number: the job's last is ",
                                              job->state_number, ", got ",
                                              request_.after_state_number()));
  }
  const absl::StatusOr<std::vector<scheduler::StateEvent>> past =
      context_.store.ReadEvents(request_.id(), 0, kMaxEventsOfAJob);
  if (!past.ok()) return past.status();
  for (const scheduler::StateEvent& event : *past) {
    if (event.number > request_.after_state_number()) break;
    state_number_ = event.number;
    EnterState(static_cast<v1::JobState>(event.state), event.attempt);
  }
  // A resume point past what there is: someone else's, or of a video that is gone.
  const int last_attempt = job->attempts.empty() ? 0 : job->attempts.back().number;
  if (request_.attempt() > last_attempt) {
    return absl::OutOfRangeError(
        absl::StrCat("attempt: the job's last is ", last_attempt, ", got ", request_.attempt()));
  }
  if (!request_.no_video() && request_.attempt() == last_attempt && request_.offset() > 0) {
    const LiveView live = context_.hub.View(request_.id());
    int64_t bytes = -1;
    if (job->artifact.has_value()) bytes = job->artifact->size_bytes;
    if (job->state == scheduler::JobState::kRunning && live.attempt == last_attempt) {
      bytes = live.bytes;
    }
    if (bytes >= 0 && request_.offset() > bytes) {
      return absl::OutOfRangeError(
          absl::StrCat("offset: there are ", bytes, " bytes, got ", request_.offset()));
    }
  }
  return absl::OkStatus();
}

void Watcher::EnterState(v1::JobState state, int attempt) {
  state_ = state;
  if (state == v1::RUNNING && attempt != attempt_) {
    attempt_ = attempt;
    offset_ = attempt == request_.attempt() ? request_.offset() : 0;
    file_.reset();
  }
}

absl::StatusOr<bool> Watcher::NextEvent() {
  event_.Clear();
  const LiveView live = context_.hub.View(request_.id());
  if (live.is_going_away) return GoingAway();
  const absl::StatusOr<bool> has_state = NextState(live);
  if (!has_state.ok() || *has_state) return has_state;
  if (!was_progress_ && NextProgress(live)) {
    was_progress_ = true;
    return true;
  }
  was_progress_ = false;
  const absl::StatusOr<bool> has_chunk = NextChunk(live);
  if (!has_chunk.ok() || *has_chunk) return has_chunk;
  if (NextProgress(live)) return true;
  return NextFinished();
}

absl::StatusOr<bool> Watcher::NextState(const LiveView& live) {
  if (!has_unread_states_ && live.state_number <= state_number_) return false;
  const absl::StatusOr<std::vector<scheduler::StateEvent>> events =
      context_.store.ReadEvents(request_.id(), state_number_, 1);
  if (!events.ok()) return events.status();
  if (events->empty()) {
    has_unread_states_ = false;
    return false;
  }
  const scheduler::StateEvent& event = events->front();
  has_unread_states_ = true;
  state_number_ = event.number;
  EnterState(static_cast<v1::JobState>(event.state), event.attempt);
  *event_.mutable_state_change() = ToProto(event);
  return true;
}

bool Watcher::NextProgress(const LiveView& live) {
  if (state_ == v1::RUNNING) {
    if (live.progress == nullptr || live.progress_version == progress_version_ ||
        live.progress->attempt() != attempt_) {
      return false;
    }
    progress_version_ = live.progress_version;
    *event_.mutable_progress() = *live.progress;
    return true;
  }
  if (state_ != v1::QUEUED || live.queue_version == queue_version_) return false;
  queue_version_ = live.queue_version;
  const auto positions = context_.store.QueuePositions({request_.id()});
  if (!positions.ok() || positions->empty()) return false;
  event_.mutable_progress()->set_queue_position(static_cast<int32_t>(positions->begin()->second));
  return true;
}

absl::Status Watcher::ReadJob() {
  if (job_.has_value()) return absl::OkStatus();
  absl::StatusOr<scheduler::Job> job = context_.store.Get(tenant_, request_.id());
  if (!job.ok()) return job.status();
  job_ = *std::move(job);
  return absl::OkStatus();
}

absl::StatusOr<bool> Watcher::NextChunk(const LiveView& live) {
  if (request_.no_video() || (state_ != v1::RUNNING && state_ != v1::SUCCEEDED)) return false;
  int64_t end = 0;
  if (state_ == v1::SUCCEEDED) {
    const absl::Status read = ReadJob();
    if (!read.ok()) return read;
    if (!job_->artifact.has_value()) return false;
    end = job_->artifact->size_bytes;
  } else if (live.attempt == attempt_) {
    end = live.bytes;
  }
  if (offset_ >= end) return false;
  if (file_ == nullptr) {
    absl::StatusOr<std::shared_ptr<const VideoFile>> file =
        context_.files.OpenVideo(FileStore::VideoName(request_.id(), attempt_));
    if (!file.ok()) {
      // Lost a moment ago; its state change is on the way.
      if (state_ == v1::RUNNING && absl::IsNotFound(file.status())) return false;
      return file.status();
    }
    file_ = *std::move(file);
  }
  v1::VideoChunk& chunk = *event_.mutable_video_chunk();
  chunk.set_attempt(attempt_);
  chunk.set_offset(offset_);
  const int64_t size = std::min(end - offset_, kChunkBytes);
  const absl::Status read = file_->Read(offset_, static_cast<size_t>(size), *chunk.mutable_data());
  if (!read.ok()) return read;
  offset_ += size;
  context_.metrics.BytesStreamed(size);
  return true;
}

absl::StatusOr<bool> Watcher::NextFinished() {
  if (!HasEnded(state_)) return false;
  const absl::Status read = ReadJob();
  if (!read.ok()) return read;
  *event_.mutable_finished() = ToProto(*job_);
  is_last_event_ = true;
  return true;
}

absl::Status Watcher::GoingAway() const {
  absl::Status status = absl::UnavailableError(
      "the server is shutting down; the job goes on, watch it again from here");
  google::rpc::ErrorInfo info;
  info.set_reason("GOING_AWAY");
  info.set_domain("kino.v1");
  auto& metadata = *info.mutable_metadata();
  metadata["job_id"] = request_.id();
  metadata["after_state_number"] = absl::StrCat(state_number_);
  metadata["attempt"] = absl::StrCat(attempt_);
  metadata["offset"] = absl::StrCat(offset_);
  convert::AddDetail(&status, info);
  return status;
}

}  // namespace kino::frontend
