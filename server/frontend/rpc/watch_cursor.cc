#include "server/frontend/rpc/watch_cursor.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "server/convert/status.h"
#include "server/frontend/rpc/job_view.h"

namespace kino::frontend {
namespace {

// With the message's other fields below what a write may hold.
constexpr int64_t kChunkBytes = int64_t{255} * 1024;
constexpr int kEventsAtOnce = 1000;

bool HasEnded(v1::JobState state) {
  return state != v1::JOB_STATE_UNSPECIFIED && state != v1::QUEUED && state != v1::RUNNING;
}

}  // namespace

WatchCursor::WatchCursor(const WatchSources& sources, std::string tenant, v1::WatchJobRequest from)
    : sources_(sources), tenant_(std::move(tenant)), request_(std::move(from)) {}

WatchCursor::~WatchCursor() {
  if (reader_ != nullptr) sources_.hub.Unsubscribe(request_.id(), reader_);
}

absl::Status WatchCursor::Begin(const std::shared_ptr<Wakeable>& reader) {
  if (request_.after_state_number() < 0 || request_.offset() < 0 || request_.attempt() < 0) {
    return convert::InvalidRequest(
        {{"after_state_number, attempt, offset", "expected no negative number"}});
  }
  // Before the first look, so that no change falls between the two.
  sources_.hub.Subscribe(request_.id(), reader);
  reader_ = reader.get();
  const absl::StatusOr<scheduler::Job> job = sources_.store.Get(tenant_, request_.id());
  if (!job.ok()) return job.status();
  const absl::Status place = CheckPlace(*job);
  if (!place.ok()) return place;
  // What the reader has seen already.
  while (state_number_ < request_.after_state_number()) {
    const int64_t left = request_.after_state_number() - state_number_;
    const absl::StatusOr<std::vector<scheduler::StateEvent>> past = sources_.store.ReadEvents(
        request_.id(), state_number_, static_cast<int>(std::min<int64_t>(left, kEventsAtOnce)));
    if (!past.ok()) return past.status();
    if (past->empty()) break;
    for (const scheduler::StateEvent& event : *past) {
      state_number_ = event.number;
      EnterState(static_cast<v1::JobState>(event.state), event.attempt);
    }
  }
  if (job->state == scheduler::JobState::kQueued) first_standing_ = sources_.queue.Find(*job);
  return absl::OkStatus();
}

// A resume point past what there is: someone else's, or of a video that is gone.
absl::Status WatchCursor::CheckPlace(const scheduler::Job& job) const {
  if (request_.after_state_number() > job.state_number) {
    return absl::OutOfRangeError(absl::StrCat("after_state_number: the job's last is ",
                                              job.state_number, ", got ",
                                              request_.after_state_number()));
  }
  const int last_attempt = job.attempts.empty() ? 0 : job.attempts.back().number;
  if (request_.attempt() > last_attempt) {
    return absl::OutOfRangeError(
        absl::StrCat("attempt: the job's last is ", last_attempt, ", got ", request_.attempt()));
  }
  if (request_.no_video() || request_.attempt() != last_attempt || request_.offset() == 0) {
    return absl::OkStatus();
  }
  const LiveView live = sources_.hub.View(request_.id());
  int64_t bytes = -1;
  if (job.artifact.has_value()) bytes = job.artifact->size_bytes;
  if (job.state == scheduler::JobState::kRunning && live.attempt == last_attempt) {
    bytes = live.bytes;
  }
  if (bytes < 0 || request_.offset() <= bytes) return absl::OkStatus();
  return absl::OutOfRangeError(
      absl::StrCat("offset: there are ", bytes, " bytes, got ", request_.offset()));
}

void WatchCursor::EnterState(v1::JobState state, int attempt) {
  state_ = state;
  told_standing_.reset();
  if (state == v1::RUNNING && attempt != attempt_) {
    attempt_ = attempt;
    // Another attempt's video begins at its beginning, however far the reader was in the last one.
    offset_ = attempt == request_.attempt() ? request_.offset() : 0;
    file_.reset();
  }
}

absl::StatusOr<WatchCursor::Next> WatchCursor::Take(v1::JobEvent& event) {
  event.Clear();
  if (is_at_end_) return Next::kEnd;
  event.set_job_id(request_.id());
  const LiveView live = sources_.hub.View(request_.id());
  if (live.is_going_away) return GoingAway();
  const absl::StatusOr<bool> has_state = NextState(live, event);
  if (!has_state.ok()) return has_state.status();
  if (*has_state) return Next::kEvent;
  // Progress and chunks take turns, so that a reader which is always behind sees both.
  if (!was_progress_ && NextProgress(live, event)) {
    was_progress_ = true;
    return Next::kEvent;
  }
  was_progress_ = false;
  const absl::StatusOr<bool> has_chunk = NextChunk(live, event);
  if (!has_chunk.ok()) return has_chunk.status();
  if (*has_chunk || NextProgress(live, event)) return Next::kEvent;
  const absl::StatusOr<bool> is_finished = NextFinished(event);
  if (!is_finished.ok()) return is_finished.status();
  return *is_finished ? Next::kEvent : Next::kNothing;
}

absl::StatusOr<bool> WatchCursor::NextState(const LiveView& live, v1::JobEvent& event) {
  if (!has_unread_states_ && live.state_number <= state_number_) return false;
  const absl::StatusOr<std::vector<scheduler::StateEvent>> events =
      sources_.store.ReadEvents(request_.id(), state_number_, 1);
  if (!events.ok()) return events.status();
  if (events->empty()) {
    has_unread_states_ = false;
    return false;
  }
  const scheduler::StateEvent& next = events->front();
  has_unread_states_ = true;
  state_number_ = next.number;
  EnterState(static_cast<v1::JobState>(next.state), next.attempt);
  *event.mutable_state_change() = ToProto(next);
  return true;
}

bool WatchCursor::NextProgress(const LiveView& live, v1::JobEvent& event) {
  if (state_ == v1::QUEUED) return NextStanding(live, event);
  if (state_ != v1::RUNNING || live.progress == nullptr ||
      live.progress_version == progress_version_ || live.progress->attempt() != attempt_) {
    return false;
  }
  progress_version_ = live.progress_version;
  *event.mutable_progress() = *live.progress;
  return true;
}

bool WatchCursor::NextStanding(const LiveView& live, v1::JobEvent& event) {
  const std::optional<Standing> standing = live.standing ? live.standing : first_standing_;
  first_standing_.reset();
  if (!standing || (told_standing_ && TellsTheSame(*told_standing_, *standing))) return false;
  told_standing_ = standing;
  FillStanding(*standing, sources_.clock.Now(), *event.mutable_progress());
  return true;
}

absl::Status WatchCursor::ReadJob() {
  if (job_.has_value()) return absl::OkStatus();
  absl::StatusOr<scheduler::Job> job = sources_.store.Get(tenant_, request_.id());
  if (!job.ok()) return job.status();
  job_ = *std::move(job);
  return absl::OkStatus();
}

absl::StatusOr<bool> WatchCursor::NextChunk(const LiveView& live, v1::JobEvent& event) {
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
        sources_.files.OpenVideo(FileStore::VideoName(request_.id(), attempt_));
    if (!file.ok()) {
      // Lost a moment ago; its state change is on the way.
      if (state_ == v1::RUNNING && absl::IsNotFound(file.status())) return false;
      return file.status();
    }
    file_ = *std::move(file);
  }
  v1::VideoChunk& chunk = *event.mutable_video_chunk();
  chunk.set_attempt(attempt_);
  chunk.set_offset(offset_);
  const int64_t size = std::min(end - offset_, kChunkBytes);
  const absl::Status read = file_->Read(offset_, static_cast<size_t>(size), *chunk.mutable_data());
  if (!read.ok()) return read;
  offset_ += size;
  sources_.metrics.BytesStreamed(size);
  return true;
}

absl::StatusOr<bool> WatchCursor::NextFinished(v1::JobEvent& event) {
  if (!HasEnded(state_)) return false;
  const absl::Status read = ReadJob();
  if (!read.ok()) return read;
  *event.mutable_finished() = ToProto(*job_, sources_.result_ttl);
  is_at_end_ = true;
  return true;
}

v1::WatchJobRequest WatchCursor::ResumePoint() const {
  v1::WatchJobRequest point = request_;
  point.set_after_state_number(state_number_);
  // Before the first attempt was seen the caller's own place in it holds.
  if (attempt_ > 0) {
    point.set_attempt(attempt_);
    point.set_offset(offset_);
  }
  return point;
}

absl::Status WatchCursor::GoingAway() const {
  absl::Status status = absl::UnavailableError(
      "the server is shutting down; the job goes on, watch it again from here");
  google::rpc::ErrorInfo info;
  info.set_reason("GOING_AWAY");
  info.set_domain("kino.v1");
  const v1::WatchJobRequest point = ResumePoint();
  auto& metadata = *info.mutable_metadata();
  metadata["job_id"] = point.id();
  metadata["after_state_number"] = absl::StrCat(point.after_state_number());
  metadata["attempt"] = absl::StrCat(point.attempt());
  metadata["offset"] = absl::StrCat(point.offset());
  convert::AddDetail(&status, info);
  return status;
}

}  // namespace kino::frontend
