// The link's half that ends attempts: results made durable, failures, lost and stuck workers,
// cancellation.
#include <signal.h>
#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/status.h"
#include "server/command_line/utf8.h"
#include "server/frontend/link/session.h"
#include "server/frontend/link/worker_link.h"

namespace kino::frontend {
namespace {

// The store works again once its disk does.
bool IsTransient(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsResourceExhausted(status);
}

}  // namespace

void WorkerLink::BeginCommit(Live& live, const v1::AttemptDone& done, int64_t number) {
  live.is_finishing = true;
  const scheduler::AttemptRef ref = live.ref;
  // fsync and the digest may take seconds; other attempts go on meanwhile.
  parts_.io.Post([this, ref, done, number] {
    const absl::StatusOr<FileStore::Digest> digest =
        parts_.files.FinishVideo(FileStore::VideoName(ref.job_id, ref.attempt));
    strand_.Post([this, ref, done, number, digest] { FinishCommit(ref, done, number, digest); });
  });
}

void WorkerLink::FinishCommit(const scheduler::AttemptRef& ref, const v1::AttemptDone& done,
                              int64_t number, const absl::StatusOr<FileStore::Digest>& digest) {
  const Live* live = FindLive(ref);
  if (live == nullptr) return;
  absl::Status status = digest.status();
  if (status.ok() && (digest->size_bytes != done.artifact().size_bytes() ||
                      digest->sha256 != done.artifact().sha256())) {
    status = absl::InternalError(absl::StrCat(
        "the worker's video has ", done.artifact().size_bytes(), " bytes with SHA-256 ",
        command_line::TruncateUtf8(done.artifact().sha256(), 64), "; received were ",
        digest->size_bytes, " bytes with ", digest->sha256));
  }
  if (!status.ok()) {
    if (const Peer* peer = FindPeer(live->worker)) Drop(*peer, ref);
    EndWithoutResult(ref,
                     {.cause = scheduler::FailureCause::kInternal, .error = status, .stats = ""});
    return;
  }
  const v1::Artifact& artifact = done.artifact();
  TryCommit({.ref = ref,
             .artifact = {.content_type = "video/mp4",
                          .size_bytes = digest->size_bytes,
                          .sha256 = digest->sha256,
                          .width = artifact.width(),
                          .height = artifact.height(),
                          .num_frames = artifact.num_frames(),
                          .fps = artifact.fps(),
                          .file_name = FileStore::VideoName(ref.job_id, ref.attempt)},
             .stats = EncodeStats(done.stages(), done.has_plan()          ? &done.plan()
                                                 : live->plan.has_value() ? &*live->plan
                                                                          : nullptr),
             .done = done,
             .number = number});
}

void WorkerLink::TryCommit(Commit commit) {
  const Live* live = FindLive(commit.ref);
  if (live == nullptr) return;
  const std::string model = live->model;
  const std::string worker = live->worker;
  const absl::StatusOr<scheduler::Job> job =
      parts_.store.Commit(commit.ref, commit.artifact, commit.stats);
  if (!job.ok() && IsTransient(job.status())) {
    spdlog::error("job {}: its result cannot be committed yet: {}", commit.ref.job_id,
                  job.status().ToString());
    pending_commits_.push_back(std::move(commit));
    return;
  }
  const bool has_won = job.ok() && job->state == scheduler::JobState::kSucceeded;
  if (has_won) {
    parts_.metrics.AttemptEnded("succeeded");
    parts_.metrics.AttemptStages(model, commit.done.stages());
    parts_.metrics.AttemptSteps(model, commit.done);
    spdlog::info("job {} attempt {}: succeeded, {} bytes", commit.ref.job_id, commit.ref.attempt,
                 commit.artifact.size_bytes);
  } else {
    parts_.metrics.AttemptEnded("cancelled");
    spdlog::info(
        "job {} attempt {}: its result was not taken ({})", commit.ref.job_id, commit.ref.attempt,
        job.ok() ? scheduler::JobStateName(job->state) : std::string(job.status().message()));
  }
  Forget(commit.ref, /*keep_file=*/has_won);
  if (const Peer* peer = FindPeer(worker)) {
    Ack(*peer, commit.ref, commit.number, commit.artifact.size_bytes);
  }
  dispatcher_.Pump();
}

void WorkerLink::EndWithoutResult(const scheduler::AttemptRef& ref,
                                  scheduler::AttemptFailure failure) {
  spdlog::info("job {} attempt {}: ended without a result, {}: {}", ref.job_id, ref.attempt,
               scheduler::FailureCauseName(failure.cause), std::string(failure.error.message()));
  parts_.metrics.AttemptEnded(scheduler::FailureCauseName(failure.cause));
  TryEnding({.ref = ref, .failure = std::move(failure)});
}

void WorkerLink::TryEnding(Ending ending) {
  const absl::StatusOr<scheduler::Job> job = parts_.store.Fail(ending.ref, ending.failure);
  // The event comes first, so that watchers leave the file before it goes. But on a full disk the
  // file has to go first.
  Forget(ending.ref, /*keep_file=*/false);
  if (!job.ok() && IsTransient(job.status())) {
    spdlog::error("job {}: the end of its attempt cannot be stored yet: {}", ending.ref.job_id,
                  job.status().ToString());
    pending_endings_.push_back(std::move(ending));
    return;
  }
  if (job.ok()) {
    spdlog::info("job {}: {}", ending.ref.job_id, scheduler::JobStateName(job->state));
  } else if (!scheduler::IsStaleAttempt(job.status()) && !absl::IsNotFound(job.status())) {
    spdlog::error("job {}: {}", ending.ref.job_id, job.status().ToString());
  }
  dispatcher_.Pump();
}

void WorkerLink::Forget(const scheduler::AttemptRef& ref, bool keep_file) {
  registry_.Release(ref);
  if (FindLive(ref) != nullptr) live_.erase(ref.job_id);
  if (!keep_file) parts_.files.RemoveVideo(FileStore::VideoName(ref.job_id, ref.attempt));
  parts_.hub.OnAttemptEnded(ref.job_id, ref.attempt);
  absl::MutexLock lock(&mutex_);
  attempts_held_ = static_cast<int>(live_.size());
}

void WorkerLink::HandleLost(const scheduler::LostAttempt& lost) {
  const Live* live = FindLive(lost.ref);
  // All its bytes are here: the result counts, whatever has become of the worker.
  if (live != nullptr && live->is_finishing) return;
  if (const Peer* peer = FindPeer(lost.worker)) Drop(*peer, lost.ref);
  EndWithoutResult(
      lost.ref, {.cause = lost.cause, .error = absl::UnavailableError(lost.reason), .stats = ""});
  if (lost.cause == scheduler::FailureCause::kHang ||
      lost.cause == scheduler::FailureCause::kRunTimeout) {
    KillStuck(lost.worker, lost.cause);
  }
}

void WorkerLink::KillStuck(const std::string& worker, scheduler::FailureCause cause) {
  const Peer* peer = FindPeer(worker);
  // It must get no other job in its last moments.
  if (peer != nullptr) (void)registry_.StartDraining(peer->id);
  const auto started = pids_.find(worker);
  const int pid = started != pids_.end() ? started->second : peer != nullptr ? peer->pid : 0;
  KillWorker kill;
  {
    absl::MutexLock lock(&mutex_);
    kill = kill_;
  }
  parts_.metrics.WorkerKilled();
  if (kill && pid > 0) {
    kills_[worker] = {pid, cause};
    const absl::Status asked = kill(worker, pid);
    if (asked.ok()) {
      spdlog::warn("worker {}: stuck, kinod was asked to kill it", worker);
      return;
    }
    spdlog::error("worker {}: stuck, and kinod cannot be asked to kill it: {}", worker,
                  std::string(asked.message()));
  }
  if (peer != nullptr) peer->stream->Close(absl::AbortedError("the worker is stuck"));
}

void WorkerLink::HandleExit(const config::WorkerExited& exited) {
  if (pids_[exited.worker] == exited.pid) pids_.erase(exited.worker);
  const Peer* peer = FindPeer(exited.worker);
  // Another process serves under this name already.
  if (peer != nullptr && peer->pid != exited.pid) return;
  scheduler::FailureCause cause = scheduler::FailureCause::kCrash;
  const bool was_orderly =
      exited.signal == SIGTERM || (exited.signal == 0 && exited.exit_code == 0);
  if (is_machine_stopping_ || was_orderly) cause = scheduler::FailureCause::kInterrupted;
  const auto killed = kills_.find(exited.worker);
  if (killed != kills_.end()) {
    // Others that ran beside the stuck one are not to blame for it.
    if (killed->second.first == exited.pid) cause = scheduler::FailureCause::kInterrupted;
    kills_.erase(killed);
  }
  const std::string reason =
      exited.signal != 0 ? absl::StrCat("worker lost: ended by signal ", exited.signal)
                         : absl::StrCat("worker lost: ended with exit code ", exited.exit_code);
  spdlog::warn("worker {}: {}", exited.worker, reason);
  for (const scheduler::LostAttempt& lost :
       registry_.WorkerEnded(exited.worker, exited.pid, cause, reason)) {
    HandleLost(lost);
  }
}

void WorkerLink::AskToCancel(Live& live) {
  if (live.is_finishing || live.cancel_deadline != absl::InfiniteDuration()) return;
  live.cancel_deadline = parts_.clock.Monotonic() + options_.limits.cancel_grace;
  const Peer* peer = FindPeer(live.worker);
  if (peer == nullptr) return;  // told when it comes back
  v1::FrontendMessage message;
  v1::AttemptRef& ref = *message.mutable_cancel()->mutable_ref();
  ref.set_job_id(live.ref.job_id);
  ref.set_attempt(live.ref.attempt);
  ref.set_token(live.ref.token);
  peer->stream->Send(std::move(message));
}

void WorkerLink::CheckCancelDeadlines() {
  const absl::Duration now = parts_.clock.Monotonic();
  std::vector<std::pair<scheduler::AttemptRef, std::string>> overdue;
  for (const auto& [job_id, live] : live_) {
    if (live.cancel_deadline <= now && !live.is_finishing)
      overdue.push_back({live.ref, live.worker});
  }
  for (const auto& [ref, worker] : overdue) {
    if (const Peer* peer = FindPeer(worker)) Drop(*peer, ref);
    EndWithoutResult(ref, {.cause = scheduler::FailureCause::kCancelled,
                           .error = absl::CancelledError("cancelled; the worker did not stop in "
                                                         "time and was ended"),
                           .stats = ""});
    KillStuck(worker, scheduler::FailureCause::kCancelled);
  }
}

}  // namespace kino::frontend
