#include "server/frontend/rpc/job_view.h"

#include <algorithm>

#include "kino/v1/stored.pb.h"
#include "scheduler/status.h"
#include "server/convert/duration.h"
#include "server/frontend/rpc/errors.h"

namespace kino::frontend {
namespace {

template <typename Message>
void Fill(const Standing& standing, absl::Time now, Message& out) {
  out.set_queue_position(static_cast<int32_t>(standing.position));
  out.set_waiting_reason(standing.reason);
  if (standing.until != absl::InfiniteFuture()) {
    SetTime(standing.until, out.mutable_waiting_until());
  }
  const auto set_left = [&](absl::Time end, auto mutable_left) {
    if (end == absl::InfiniteFuture()) return;
    convert::SetDuration(std::max(end - now, absl::ZeroDuration()), (out.*mutable_left)());
  };
  set_left(standing.start, &Message::mutable_start_eta);
  set_left(standing.end, &Message::mutable_eta);
}

}  // namespace

void FillStanding(const Standing& standing, absl::Time now, v1::Job& out) {
  Fill(standing, now, out);
}

void FillStanding(const Standing& standing, absl::Time now, v1::Progress& out) {
  Fill(standing, now, out);
}

void SetTime(absl::Time time, google::protobuf::Timestamp* out) {
  const int64_t nanos = absl::ToUnixNanos(time);
  int64_t seconds = nanos / 1'000'000'000;
  int64_t rest = nanos % 1'000'000'000;
  if (rest < 0) {
    rest += 1'000'000'000;
    --seconds;
  }
  out->set_seconds(seconds);
  out->set_nanos(static_cast<int32_t>(rest));
}

v1::StateChange ToProto(const scheduler::StateEvent& event) {
  v1::StateChange out;
  out.set_number(event.number);
  out.set_state(static_cast<v1::JobState>(event.state));
  out.set_attempt(event.attempt);
  SetTime(event.time, out.mutable_time());
  out.set_reason(event.reason);
  return out;
}

v1::Job ToProto(const scheduler::Job& job, absl::Duration result_ttl) {
  v1::Job out;
  if (v1::RunStats stats; stats.ParseFromString(job.stats)) {
    out.mutable_stages()->Swap(stats.mutable_stages());
    if (stats.has_plan()) out.mutable_plan()->Swap(stats.mutable_plan());
    if (stats.has_receipt()) out.mutable_receipt()->Swap(stats.mutable_receipt());
  }
  out.set_id(job.id);
  out.set_state(static_cast<v1::JobState>(job.state));
  out.set_state_number(job.state_number);
  if (!out.mutable_request()->ParseFromString(job.request)) out.clear_request();
  SetTime(job.create_time, out.mutable_create_time());
  if (job.start_time.has_value()) SetTime(*job.start_time, out.mutable_start_time());
  if (job.end_time.has_value()) SetTime(*job.end_time, out.mutable_end_time());
  for (const scheduler::Attempt& attempt : job.attempts) {
    v1::Attempt& proto = *out.add_attempts();
    proto.set_number(attempt.number);
    proto.set_worker(attempt.worker);
    SetTime(attempt.start_time, proto.mutable_start_time());
    if (attempt.end_time.has_value()) SetTime(*attempt.end_time, proto.mutable_end_time());
    if (attempt.error.ok()) continue;
    const bool has_reason = !scheduler::ReasonOf(attempt.error).empty();
    *proto.mutable_error() = ToWireStatus(
        has_reason || attempt.cause == scheduler::FailureCause::kNone
            ? attempt.error
            : WithErrorInfo(attempt.error, scheduler::FailureCauseName(attempt.cause)));
    proto.set_cause(scheduler::FailureCauseName(attempt.cause));
    if (!attempt.evidence.empty() && !proto.mutable_evidence()->ParseFromString(attempt.evidence))
      proto.clear_evidence();
  }
  out.set_cancel_requested(job.cancel_requested);
  if (!job.error.ok()) *out.mutable_error() = ToWireStatus(job.error);
  if (job.artifact.has_value()) {
    v1::Artifact& artifact = *out.mutable_artifact();
    artifact.set_content_type(job.artifact->content_type);
    artifact.set_size_bytes(job.artifact->size_bytes);
    artifact.set_sha256(job.artifact->sha256);
    artifact.set_width(job.artifact->width);
    artifact.set_height(job.artifact->height);
    artifact.set_num_frames(job.artifact->num_frames);
    artifact.set_fps(job.artifact->fps);
    if (job.end_time.has_value())
      SetTime(*job.end_time + job.result_ttl.value_or(result_ttl), artifact.mutable_expire_time());
  }
  out.set_server_version(job.server_version);
  return out;
}

v1::Asset ToProto(const scheduler::Asset& asset) {
  v1::Asset out;
  out.set_id(asset.id);
  out.set_size_bytes(asset.size_bytes);
  out.set_sha256(asset.sha256);
  out.set_content_type(asset.content_type);
  out.set_width(asset.width);
  out.set_height(asset.height);
  out.set_num_frames(asset.num_frames);
  out.set_fps(asset.fps);
  SetTime(asset.create_time, out.mutable_create_time());
  return out;
}

}  // namespace kino::frontend
