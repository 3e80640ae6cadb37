#include "server/frontend/link/attempts.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/fault_point.h"
#include "scheduler/status.h"
#include "server/command_line/utf8.h"
#include "server/convert/duration.h"
#include "server/convert/trace_context.h"
#include "server/frontend/link/attempt_end.h"
#include "server/frontend/link/finished_run.h"

namespace kino::frontend {
namespace {

using scheduler::FailureCause;

constexpr size_t kMaxChunkBytes = size_t{256} * 1024;
// Of what the link may carry, with room for what the message has beside.
constexpr size_t kMaxStartBytes = size_t{3} << 20;
constexpr absl::Duration kTryAgain = absl::Milliseconds(500);

// The attempt is not the store's any more: there is nothing left to store.
bool IsOver(const absl::Status& status) {
  return scheduler::IsStaleAttempt(status) || absl::IsNotFound(status);
}

// Stored with the job, serialized.
v1::RunStats StatsOf(const google::protobuf::RepeatedPtrField<v1::StageStats>& stages,
                     const std::optional<v1::Plan>& plan, const v1::Receipt& receipt) {
  v1::RunStats stats;
  *stats.mutable_receipt() = receipt;
  *stats.mutable_stages() = stages;
  if (plan.has_value()) *stats.mutable_plan() = *plan;
  return stats;
}

}  // namespace

std::string Attempts::Evidence(const Live& live, const scheduler::AttemptPulse& pulse,
                               const config::WorkerExited* exited) const {
  v1::CrashEvidence evidence;
  // Progress is told more often than the heart beats.
  const bool has_progress = live.progress.stage() != v1::STAGE_UNSPECIFIED;
  evidence.set_stage(has_progress || !v1::Stage_IsValid(pulse.stage)
                         ? live.progress.stage()
                         : static_cast<v1::Stage>(pulse.stage));
  evidence.set_step(has_progress ? live.progress.step() : pulse.steps);
  evidence.set_device(live.device);
  evidence.set_device_memory_bytes(live.device_memory_bytes);
  if (exited != nullptr) {
    evidence.set_signal(exited->signal);
    evidence.set_exit_code(exited->exit_code);
  }
  return evidence.SerializeAsString();
}

absl::Status Attempts::Adopt(const std::vector<scheduler::RunningAttempt>& running) {
  for (const scheduler::RunningAttempt& attempt : running) {
    const std::string video = FileStore::VideoName(attempt.ref.job_id, attempt.ref.attempt);
    absl::StatusOr<std::unique_ptr<VideoWriter>> writer = parts_.files.OpenWriter(video);
    if (!writer.ok()) return writer.status();
    const absl::StatusOr<scheduler::Job> job = parts_.store.GetAnyTenant(attempt.ref.job_id);
    if (!job.ok()) return job.status();
    Live live;
    live.ref = attempt.ref;
    live.model = job->model;
    live.work = job->work;
    live.worker = attempt.worker;
    live.writer = *std::move(writer);
    // Of this attempt, if it has begun.
    if (v1::RunStats stats;
        stats.ParseFromString(job->stats) && stats.receipt().worker() == attempt.worker) {
      if (stats.has_plan()) live.plan = stats.plan();
      live.receipt = stats.receipt();
      live.device = live.receipt.device();
    }
    if (attempt.cancel_requested) live.cancel_deadline = parts_.clock.Monotonic() + cancel_grace_;
    parts_.hub.OnBytes(attempt.ref.job_id, attempt.ref.attempt, live.writer->size());
    spdlog::info("job {} attempt {}: waiting for worker {} to come back", attempt.ref.job_id,
                 attempt.ref.attempt, attempt.worker);
    live_.emplace(attempt.ref.job_id, std::move(live));
  }
  return absl::OkStatus();
}

void Attempts::GiveUp(const std::vector<scheduler::RunningAttempt>& running, FailureCause cause,
                      const std::string& reason) {
  for (const scheduler::RunningAttempt& attempt : running) {
    Live& live = live_[attempt.ref.job_id];
    live.ref = attempt.ref;
    live.worker = attempt.worker;
    End(live, {.cause = cause, .error = absl::UnavailableError(reason), .stats = ""});
  }
}

absl::StatusOr<v1::StartAttempt> Attempts::MakeStartAttempt(
    const scheduler::ClaimedAttempt& claimed) const {
  v1::StartAttempt start;
  *start.mutable_ref() = ToProto(claimed.ref);
  if (!start.mutable_request()->ParseFromString(claimed.job.request)) {
    return absl::InvalidArgumentError("the stored request cannot be read");
  }
  for (const v1::Condition& condition : start.request().conditions()) {
    const absl::StatusOr<scheduler::Asset> asset =
        parts_.store.GetAsset(claimed.job.tenant, condition.asset_id());
    if (!asset.ok()) return asset.status();
    start.add_condition_files(parts_.files.AssetPath(asset->file_name));
  }
  convert::SetDuration(claimed.job.run_timeout, start.mutable_run_timeout());
  if (start.ByteSizeLong() > kMaxStartBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the effective request has ",
                                                   start.ByteSizeLong(),
                                                   " bytes, expected at most ", kMaxStartBytes));
  }
  return start;
}

void Attempts::Start(const scheduler::Reservation& reservation,
                     const scheduler::ClaimedAttempt& claimed, const absl::Status& assigned) {
  const scheduler::AttemptRef& ref = claimed.ref;
  if (ref.attempt == 1) {
    parts_.metrics.JobStarted(claimed.job.priority, parts_.clock.Now() - claimed.job.create_time);
  }
  Live live;
  live.ref = ref;
  live.model = claimed.job.model;
  live.work = claimed.job.work;
  live.run_time = parts_.history.RunTime(live.model, live.work).value_or(absl::InfiniteDuration());
  live.worker = reservation.worker.name;
  live.applied = 0;
  Live& kept = live_.insert_or_assign(ref.job_id, std::move(live)).first->second;
  const Peer* const peer = parts_.peers.Find(reservation.session);
  if (!assigned.ok() || peer == nullptr) {
    return End(kept,
               {.cause = FailureCause::kInterrupted,
                .error = assigned.ok() ? absl::UnavailableError("the worker went away") : assigned,
                .stats = ""});
  }
  kept.device = peer->device;
  kept.receipt = ReceiptOf(*peer, kept.model);
  absl::StatusOr<v1::StartAttempt> start = MakeStartAttempt(claimed);
  if (!start.ok()) {
    // A missing asset and a request that cannot be read are the job's; that the server could not
    // look is its own trouble and passes.
    const bool is_the_jobs =
        absl::IsNotFound(start.status()) || absl::IsInvalidArgument(start.status());
    if (!is_the_jobs) {
      listener_.on_shortage(kWaitsForServer, std::string(start.status().message()));
    }
    return End(kept, {.cause = is_the_jobs ? FailureCause::kClient : FailureCause::kInterrupted,
                      .error = start.status(),
                      .stats = ""});
  }
  absl::StatusOr<std::unique_ptr<VideoWriter>> writer =
      parts_.files.OpenWriter(FileStore::VideoName(ref.job_id, ref.attempt));
  if (!writer.ok()) {
    const bool is_full = CauseOfFileError(writer.status()) == FailureCause::kDiskFull;
    if (!is_full) listener_.on_shortage(kWaitsForServer, std::string(writer.status().message()));
    return End(kept, {.cause = is_full ? FailureCause::kDiskFull : FailureCause::kInterrupted,
                      .error = writer.status(),
                      .stats = ""});
  }
  kept.writer = *std::move(writer);
  KINO_FAULT_POINT("frontend.start.before_send");
  parts_.hub.OnBytes(ref.job_id, ref.attempt, 0);
  spdlog::info("job {} attempt {}: given to worker {}{}", ref.job_id, ref.attempt, peer->name,
               convert::TraceForLog(start->request()));
  v1::FrontendMessage message;
  *message.mutable_start() = *std::move(start);
  peer->stream->Send(std::move(message));
  KINO_FAULT_POINT("frontend.start.sent");
  if (claimed.job.cancel_requested) AskToCancel(kept);
}

void Attempts::Resume(const Peer& peer, const scheduler::HelloResult& result,
                      v1::HelloReply& reply) {
  for (const scheduler::AttemptRef& ref : result.resumed) {
    const Live* live = Find(ref);
    if (live == nullptr || live->writer == nullptr) continue;
    v1::AttemptAck& ack = *reply.add_resumed();
    *ack.mutable_ref() = ToProto(ref);
    ack.set_number(live->applied.value_or(0));
    ack.set_offset(live->writer->size());
    spdlog::info("job {} attempt {}: goes on with worker {} from byte {}", ref.job_id, ref.attempt,
                 peer.name, live->writer->size());
  }
}

void Attempts::AfterHello(const Peer& peer, const scheduler::HelloResult& result) {
  for (const scheduler::AttemptRef& ref : result.dropped) SendDrop(peer, ref);
  for (const scheduler::AttemptRef& ref : result.resumed) {
    Live* live = Find(ref);
    if (live == nullptr || live->writer == nullptr) {
      parts_.registry.Release(ref);
      SendDrop(peer, ref);
      continue;
    }
    live->device = peer.device;
    live->receipt = ReceiptOf(peer, live->model);
    TellUsualSteps(*live);
    if (live->cancel_deadline == absl::InfiniteDuration()) continue;
    live->cancel_deadline = absl::InfiniteDuration();
    AskToCancel(*live);
  }
  for (const scheduler::LostAttempt& lost : result.lost) Lose(lost);
}

void Attempts::OnHeartbeat(const Peer& peer) {
  for (auto& [job_id, live] : live_) {
    if (live.worker == peer.name) live.device_memory_bytes = peer.device_memory_used_bytes;
  }
}

void Attempts::OnEvent(const Peer& peer, const v1::AttemptEvent& event) {
  const scheduler::AttemptRef ref = FromProto(event.ref());
  const absl::StatusOr<scheduler::SessionId> holder = parts_.registry.Holder(ref);
  Live* live = Find(ref);
  if (!holder.ok() || *holder != peer.id || live == nullptr) {
    parts_.metrics.StaleMessage();
    spdlog::info("job {} attempt {}: refused worker {}'s message, the attempt is not its own",
                 command_line::TruncateUtf8(ref.job_id, 64), ref.attempt, peer.name);
    return SendDrop(peer, ref);
  }
  if (event.number() == 0) {
    if (event.has_progress()) ShowProgress(*live, event.progress());
    return;
  }
  // All there can be has been said. The worker's last event is acknowledged once it is durable.
  if (live->phase != Phase::kRunning) return;
  if (live->applied.has_value() && event.number() <= *live->applied) {
    return SendAck(peer, ref, *live->applied, live->writer->size());
  }
  const absl::Status applied = Apply(peer, *live, event);
  if (applied.ok()) return;
  spdlog::warn("job {} attempt {}: {}", ref.job_id, ref.attempt, std::string(applied.message()));
  SendDrop(peer, ref);
  End(*live, {.cause = CauseOfFileError(applied), .error = applied, .stats = ""});
}

absl::Status Attempts::Apply(const Peer& peer, Live& live, const v1::AttemptEvent& event) {
  const scheduler::AttemptRef ref = live.ref;
  const int64_t number = event.number();
  if (number < 0 || (live.applied.has_value() && number != *live.applied + 1)) {
    return absl::InternalError(
        absl::StrCat("the worker sent event ", number, " after event ", live.applied.value_or(0)));
  }
  switch (event.event_case()) {
    case v1::AttemptEvent::kStarted:
      if (event.started().has_plan()) live.plan = event.started().plan();
      KINO_FAULT_POINT("frontend.started");
      parts_.registry.Begun(ref);
      live.has_begun = true;
      live.expected_end = parts_.clock.Monotonic() + live.run_time;
      TellUsualSteps(live);
      // The plan is told again with the result; a store that is full for now costs nothing here.
      parts_.store.RecordStats(ref, StatsOf({}, live.plan, live.receipt).SerializeAsString(),
                               [](const absl::StatusOr<scheduler::Job>&) {});
      break;
    case v1::AttemptEvent::kChunk: {
      const v1::Chunk& chunk = event.chunk();
      if (chunk.data().size() > kMaxChunkBytes) {
        return absl::InternalError(absl::StrCat("the worker sent a chunk of ", chunk.data().size(),
                                                " bytes; at most ", kMaxChunkBytes));
      }
      KINO_FAULT_POINT("frontend.chunk.before_append");
      const absl::Status appended = live.writer->Append(chunk.offset(), chunk.data());
      if (absl::IsOutOfRange(appended)) {
        return absl::InternalError(absl::StrCat("the worker's ", appended.message()));
      }
      if (!appended.ok()) return appended;
      KINO_FAULT_POINT("frontend.chunk.appended");
      parts_.hub.OnBytes(ref.job_id, ref.attempt, live.writer->size());
      break;
    }
    case v1::AttemptEvent::kDone:
      BeginSync(live, event.done(), number);
      return absl::OkStatus();
    case v1::AttemptEvent::kFailed: {
      const v1::AttemptFailed& failed = event.failed();
      parts_.metrics.AttemptStages(live.model, failed.stages());
      const FailureCause cause = CauseOf(failed.cause());
      const absl::Status error = ErrorOf(failed);
      if (failed.cause() == v1::AttemptFailed::SHORTAGE)
        listener_.on_shortage(kWaitsForServer, std::string(error.message()));
      End(live,
          {.cause = cause,
           .error = error,
           .stats = StatsOf(failed.stages(), live.plan, live.receipt).SerializeAsString(),
           .evidence = IsCrash(cause) ? Evidence(live, parts_.registry.PulseOf(ref), nullptr) : ""},
          number);
      return absl::OkStatus();
    }
    default:
      return absl::InternalError("the worker sent an event of an unknown kind");
  }
  live.applied = number;
  SendAck(peer, ref, number, live.writer->size());
  KINO_FAULT_POINT("frontend.event.acknowledged");
  return absl::OkStatus();
}

void Attempts::TellUsualSteps(const Live& live) {
  if (!live.plan.has_value()) return;
  parts_.registry.SetUsualSteps(
      live.ref, parts_.history.StepsOf(live.model, live.work.shape,
                                       SettingOf(*live.plan, live.receipt.device_name())));
}

BusyTimes Attempts::BusyUntil() const {
  const absl::Duration now = parts_.clock.Monotonic();
  BusyTimes busy;
  for (const auto& [job_id, live] : live_) {
    if (live.phase != Phase::kRunning) continue;
    // They run one after the other: what has not begun waits for what has.
    const absl::Duration left =
        live.has_begun ? std::max(live.expected_end - now, absl::ZeroDuration()) : live.run_time;
    const auto entry = busy.emplace(live.worker, now).first;
    entry->second += left;
  }
  return busy;
}

void Attempts::ShowProgress(Live& live, const v1::Progress& progress) {
  if (!std::isfinite(progress.fraction()) || !v1::Stage_IsValid(progress.stage())) return;
  v1::Progress out;
  out.set_attempt(live.ref.attempt);
  out.set_pass(progress.pass());
  out.set_total_passes(progress.total_passes());
  out.set_stage(progress.stage());
  out.set_step(progress.step());
  out.set_total_steps(progress.total_steps());
  out.set_fraction(std::clamp(progress.fraction(), 0.0, 1.0));
  if (progress.has_eta() && progress.eta().seconds() >= 0) *out.mutable_eta() = progress.eta();
  live.has_begun = true;  // said already, perhaps, to a frontend before this one
  if (out.has_eta()) {
    live.expected_end = parts_.clock.Monotonic() + convert::ToDuration(out.eta());
  }
  live.progress = out;
  parts_.hub.OnProgress(live.ref.job_id, std::move(out));
}

void Attempts::NoteCancelled(const Live& live) {
  if (live.cancel_begun == absl::InfiniteDuration()) return;
  parts_.metrics.AttemptCancelled(parts_.clock.Monotonic() - live.cancel_begun);
}

void Attempts::BeginSync(Live& live, const v1::AttemptDone& done, int64_t number) {
  KINO_FAULT_POINT("frontend.done.before_sync");
  NoteCancelled(live);
  live.phase = Phase::kSyncing;
  live.done = done;
  live.last_number = number;
  Sync(live);
}

void Attempts::Sync(Live& live) {
  live.again = absl::InfiniteDuration();
  // fsync and the digest may take seconds; other attempts go on meanwhile.
  parts_.io.Post([this, ref = live.ref, post = parts_.post] {
    const absl::StatusOr<FileStore::Digest> digest =
        parts_.files.FinishVideo(FileStore::VideoName(ref.job_id, ref.attempt));
    post([this, ref, digest] { OnSynced(ref, digest); });
  });
}

void Attempts::TryAgain(Live& live, const char* what, const absl::Status& error) {
  if (!std::exchange(live.was_refused, true)) {
    spdlog::error("job {} attempt {}: {}: {}", live.ref.job_id, live.ref.attempt, what,
                  error.ToString());
  }
  live.again = parts_.clock.Monotonic() + kTryAgain;
}

void Attempts::OnSynced(const scheduler::AttemptRef& ref,
                        const absl::StatusOr<FileStore::Digest>& digest) {
  KINO_FAULT_POINT("frontend.done.synced");
  Live* live = Find(ref);
  if (live == nullptr) return;
  const v1::Artifact& artifact = live->done.artifact();
  absl::Status status = digest.status();
  if (absl::IsUnavailable(status)) {
    // The server is short of descriptors or memory. The video is all there, so it waits.
    listener_.on_shortage(kWaitsForServer, std::string(status.message()));
    TryAgain(*live, "its video cannot be synced yet", status);
    return;
  }
  if (status.ok() &&
      (digest->size_bytes != artifact.size_bytes() || digest->sha256 != artifact.sha256())) {
    status = absl::InternalError(
        absl::StrCat("the worker's video has ", artifact.size_bytes(), " bytes with SHA-256 ",
                     command_line::TruncateUtf8(artifact.sha256(), 64), "; received were ",
                     digest->size_bytes, " bytes with ", digest->sha256));
  }
  if (!status.ok()) {
    if (const Peer* peer = parts_.peers.Find(live->worker)) SendDrop(*peer, ref);
    return End(*live, {.cause = CauseOfFileError(status), .error = status, .stats = ""});
  }
  live->artifact = {.content_type = "video/mp4",
                    .size_bytes = digest->size_bytes,
                    .sha256 = digest->sha256,
                    .width = artifact.width(),
                    .height = artifact.height(),
                    .num_frames = artifact.num_frames(),
                    .fps = artifact.fps(),
                    .file_name = FileStore::VideoName(ref.job_id, ref.attempt)};
  if (live->done.has_plan()) live->plan = live->done.plan();
  // What a model is made of is known once it has been loaded, its weights' bytes later still.
  if (const Peer* peer = parts_.peers.Find(live->worker))
    live->receipt = ReceiptOf(*peer, live->model);
  if (!live->done.weights_sha256().empty())
    live->receipt.set_weights_sha256(live->done.weights_sha256());
  live->stats = StatsOf(live->done.stages(), live->plan, live->receipt);
  live->phase = Phase::kEnding;
  live->was_refused = false;
  Store(*live);
}

void Attempts::End(Live& live, scheduler::AttemptFailure failure, int64_t last_number) {
  spdlog::info("job {} attempt {}: ended without a result, {}: {}", live.ref.job_id,
               live.ref.attempt, scheduler::FailureCauseName(failure.cause),
               std::string(failure.error.message()));
  parts_.metrics.AttemptEnded(scheduler::FailureCauseName(failure.cause));
  if (live.phase == Phase::kRunning) NoteCancelled(live);
  if (failure.cause == FailureCause::kDiskFull)
    listener_.on_shortage(kWaitsForDisk, std::string(failure.error.message()));
  live.phase = Phase::kEnding;
  live.artifact.reset();
  live.failure = std::move(failure);
  live.last_number = last_number;
  Store(live);
}

void Attempts::Store(Live& live) {
  live.again = absl::InfiniteDuration();
  const scheduler::AttemptRef ref = live.ref;
  KINO_FAULT_POINT("frontend.end.before_store");
  auto done = [this, ref, post = parts_.post](absl::StatusOr<scheduler::Job> job) {
    post([this, ref, job = std::move(job)] { OnStored(ref, job); });
  };
  if (live.artifact.has_value()) {
    parts_.store.Commit(ref, *live.artifact, live.stats.SerializeAsString(), std::move(done));
  } else {
    parts_.store.Fail(ref, live.failure, std::move(done));
  }
}

void Attempts::OnStored(const scheduler::AttemptRef& ref,
                        const absl::StatusOr<scheduler::Job>& job) {
  Live* live = Find(ref);
  if (live == nullptr) return;
  const std::string video = FileStore::VideoName(ref.job_id, ref.attempt);
  if (!job.ok() && !IsOver(job.status())) {
    // The event comes first, so that watchers leave the file before it goes. But on a full disk the
    // file of a lost attempt has to go first.
    if (!live->artifact.has_value()) parts_.files.RemoveVideo(video);
    TryAgain(*live, "its end cannot be stored yet", job.status());
    return;
  }
  KINO_FAULT_POINT("frontend.end.stored");
  ReportResult(*live, job);
  const bool has_won =
      live->artifact.has_value() && job.ok() && job->state == scheduler::JobState::kSucceeded;
  const Live ended = std::move(*live);
  live_.erase(ref.job_id);
  parts_.registry.Release(ref);
  if (!has_won) parts_.files.RemoveVideo(video);
  KINO_FAULT_POINT("frontend.end.before_acknowledgement");
  parts_.hub.OnAttemptEnded(ref.job_id, ref.attempt);
  const Peer* peer = parts_.peers.Find(ended.worker);
  if (peer != nullptr && ended.last_number > 0) {
    SendAck(*peer, ref, ended.last_number, ended.writer == nullptr ? 0 : ended.writer->size());
    KINO_FAULT_POINT("frontend.end.acknowledged");
  }
  if (job.ok() && !ended.artifact.has_value() && IsCrash(ended.failure.cause) &&
      !ended.device.empty()) {
    listener_.on_crash(ended.device, ref);
  }
  listener_.on_end();
}

void Attempts::ReportResult(const Live& live, const absl::StatusOr<scheduler::Job>& job) {
  const std::string state =
      job.ok() ? scheduler::JobStateName(job->state) : std::string(job.status().message());
  if (!live.artifact.has_value()) {
    spdlog::info("job {}: {}", live.ref.job_id, state);
  } else if (job.ok() && job->state == scheduler::JobState::kSucceeded) {
    parts_.history.Learn(FinishedRunOf(live.model, live.work, live.stats));
    parts_.metrics.AttemptEnded("succeeded");
    parts_.metrics.AttemptStages(live.model, live.done.stages());
    parts_.metrics.AttemptDone(live.model, live.done);
    spdlog::info("job {} attempt {}: succeeded, {} bytes", live.ref.job_id, live.ref.attempt,
                 live.artifact->size_bytes);
  } else {
    parts_.metrics.AttemptEnded("cancelled");
    spdlog::info("job {} attempt {}: its result was not taken ({})", live.ref.job_id,
                 live.ref.attempt, state);
  }
}

void Attempts::Lose(const scheduler::LostAttempt& lost, const config::WorkerExited* exited) {
  Live* live = Find(lost.ref);
  // All its bytes are here, or its end is on the way: whatever has become of the worker.
  if (live == nullptr || live->phase != Phase::kRunning) return;
  const Peer* peer = parts_.peers.Find(lost.worker);
  if (peer != nullptr) SendDrop(*peer, lost.ref);
  scheduler::AttemptFailure failure{
      .cause = lost.cause, .error = absl::UnavailableError(lost.reason), .stats = ""};
  if (IsCrash(lost.cause)) failure.evidence = Evidence(*live, lost.pulse, exited);
  End(*live, std::move(failure));
  if (lost.cause == FailureCause::kHang || lost.cause == FailureCause::kRunTimeout)
    listener_.kill(lost.worker, lost.cause);
}

void Attempts::Cancel(const std::string& job_id) {
  const auto found = live_.find(job_id);
  if (found != live_.end()) AskToCancel(found->second);
}

void Attempts::AskToCancel(Live& live) {
  if (live.phase != Phase::kRunning || live.cancel_deadline != absl::InfiniteDuration()) return;
  const absl::Duration now = parts_.clock.Monotonic();
  live.cancel_deadline = now + cancel_grace_;
  live.cancel_begun = std::min(live.cancel_begun, now);
  // One that is away is told when it comes back.
  if (const Peer* peer = parts_.peers.Find(live.worker)) SendCancel(*peer, live.ref);
  KINO_FAULT_POINT("frontend.cancel.sent");
}

void Attempts::Tick(absl::Duration late) {
  const absl::Duration now = parts_.clock.Monotonic();
  std::vector<scheduler::AttemptRef> overdue;
  for (auto& [job_id, live] : live_) {
    if (live.again <= now) live.phase == Phase::kSyncing ? Sync(live) : Store(live);
    live.cancel_deadline += late;
    if (live.phase == Phase::kRunning && live.cancel_deadline <= now) overdue.push_back(live.ref);
  }
  for (const scheduler::AttemptRef& ref : overdue) {
    Live* live = Find(ref);
    if (live == nullptr) continue;
    const std::string worker = live->worker;
    if (const Peer* peer = parts_.peers.Find(worker)) SendDrop(*peer, ref);
    End(*live, {.cause = FailureCause::kCancelled,
                .error = absl::CancelledError("cancelled; the worker did not stop in time and was "
                                              "ended"),
                .stats = ""});
    listener_.kill(worker, FailureCause::kCancelled);
  }
}

Attempts::Live* Attempts::Find(const scheduler::AttemptRef& ref) {
  const auto found = live_.find(ref.job_id);
  return found == live_.end() || found->second.ref != ref ? nullptr : &found->second;
}

}  // namespace kino::frontend
