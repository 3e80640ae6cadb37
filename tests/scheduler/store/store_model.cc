#include "tests/scheduler/store/store_model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "scheduler/status.h"

namespace kino::scheduler {

namespace {

std::string TimeText(const std::optional<absl::Time>& time) {
  return time ? absl::StrCat(absl::ToUnixMicros(*time)) : "-";
}

std::string StatusText(const absl::Status& status) {
  return absl::StrCat(static_cast<int>(status.code()), "/", status.message(), "/",
                      ReasonOf(status));
}

}  // namespace

std::string Describe(const Job& job) {
  std::string text = absl::StrCat(
      job.id, " ", job.tenant, " ", job.model, " p", static_cast<int>(job.priority), " ",
      JobStateName(job.state), "#", job.state_number, " cancel=", job.cancel_requested,
      " request=", absl::CEscape(job.request), " fp=", job.request_fingerprint,
      " rid=", job.request_id, " v=", job.server_version);
  for (const auto& [key, value] : job.labels) absl::StrAppend(&text, " ", key, "=", value);
  absl::StrAppend(&text, " assets=", absl::StrJoin(job.asset_ids, ","));
  for (const Attempt& attempt : job.attempts) {
    absl::StrAppend(&text, "\n    attempt ", attempt.number, " ", attempt.token, " ",
                    attempt.worker, " ", TimeText(attempt.start_time), "..",
                    TimeText(attempt.end_time), " ", FailureCauseName(attempt.cause), " ",
                    static_cast<int>(attempt.error.code()), "/", attempt.error.message(),
                    " evidence=", absl::CEscape(attempt.evidence));
  }
  absl::StrAppend(
      &text, "\n    crashes=", job.failures.crashes, " oom=", job.failures.out_of_memory,
      " interruptions=", job.failures.interruptions, " stops=", job.failures.unclean_stops,
      " created=", TimeText(job.create_time), " started=", TimeText(job.start_time),
      " ended=", TimeText(job.end_time), " not before=", TimeText(job.retry_not_before),
      " start_timeout=", absl::FormatDuration(job.start_timeout),
      " run_timeout=", absl::FormatDuration(job.run_timeout),
      " result_ttl=", job.result_ttl ? absl::FormatDuration(*job.result_ttl) : "-",
      " work=", job.work.shape, "/", job.work.steps, "/", job.work.flops,
      " error=", StatusText(job.error), " stats=", absl::CEscape(job.stats),
      " purged=", job.artifact_purged);
  if (job.artifact) absl::StrAppend(&text, " artifact=", job.artifact->file_name);
  return text;
}

std::string Describe(const QueuedJob& job) {
  return absl::StrCat(job.id, " ", job.tenant, " ", job.model, " ", job.work.shape, "/",
                      job.work.steps, "/", job.work.flops, " p", static_cast<int>(job.priority),
                      " not before ", absl::FormatTime(job.retry_not_before, absl::UTCTimeZone()),
                      " start by ", absl::FormatTime(job.start_deadline, absl::UTCTimeZone()));
}

void StoreModel::Enter(ModelJob& job, JobState state, const std::string& reason) {
  job.job.state = state;
  ++job.job.state_number;
  job.events.push_back({.number = job.job.state_number,
                        .state = state,
                        .attempt = static_cast<int>(job.job.attempts.size()),
                        .time = clock_.Now(),
                        .reason = reason});
  if (state != JobState::kRunning) job.token.clear();
  if (state != JobState::kQueued) {
    job.start_by.reset();
    job.job.retry_not_before.reset();
  }
  if (IsTerminal(state)) job.job.end_time = clock_.Now();
}

void StoreModel::EndAttempt(ModelJob& job, FailureCause cause, const absl::Status& error) {
  Attempt& attempt = job.job.attempts.back();
  attempt.end_time = clock_.Now();
  attempt.cause = cause;
  attempt.error = error;
}

ModelJob* StoreModel::Running(const AttemptRef& ref) {
  const auto found = jobs_.find(ref.job_id);
  if (found == jobs_.end()) return nullptr;
  ModelJob& job = found->second;
  const bool is_that = job.job.state == JobState::kRunning &&
                       static_cast<int>(job.job.attempts.size()) == ref.attempt &&
                       job.token == ref.token;
  return is_that ? &job : nullptr;
}

bool StoreModel::HasGoneAsset(const ModelJob& job) const {
  return std::any_of(job.job.asset_ids.begin(), job.job.asset_ids.end(),
                     [&](const std::string& id) { return !assets_.contains(id); });
}

void StoreModel::RunAgain(ModelJob& job, const std::string& reason) {
  job.job.error = absl::OkStatus();
  job.job.end_time.reset();
  if (job.job.start_timeout != absl::InfiniteDuration()) {
    job.start_by = clock_.Now() + job.job.start_timeout;
  }
  Enter(job, JobState::kQueued, reason);
}

bool StoreModel::IsAssetUsed(const std::string& id) const {
  return std::any_of(jobs_.begin(), jobs_.end(), [&](const auto& entry) {
    const Job& job = entry.second.job;
    return !IsTerminal(job.state) &&
           std::find(job.asset_ids.begin(), job.asset_ids.end(), id) != job.asset_ids.end();
  });
}

absl::Status StoreModel::Submit(const NewJob& job, const std::string& made_id, std::string& id) {
  int64_t queued = 0;
  for (const auto& [known_id, known] : jobs_) {
    if (known.job.state == JobState::kQueued) ++queued;
    if (job.request_id.empty() || known.job.tenant != job.tenant ||
        known.job.request_id != job.request_id) {
      continue;
    }
    if (known.job.request_fingerprint != job.request_fingerprint) {
      return absl::AlreadyExistsError(kReasonRequestIdReused);
    }
    id = known_id;
    return absl::OkStatus();
  }
  if (queued >= options_.admission.max_queued_jobs) {
    return absl::ResourceExhaustedError(kReasonQueueFull);
  }
  for (const std::string& asset : job.asset_ids) {
    const auto found = assets_.find(asset);
    if (found == assets_.end() || found->second.tenant != job.tenant) {
      return absl::NotFoundError("");
    }
  }
  id = made_id;
  ModelJob& made = jobs_[id];
  made.order = ++last_order_;
  const std::set<std::string> assets(job.asset_ids.begin(), job.asset_ids.end());
  made.job = {.id = id,
              .tenant = job.tenant,
              .model = job.model,
              .priority = job.priority,
              .labels = job.labels,
              .request = job.request,
              .request_fingerprint = job.request_fingerprint,
              .request_id = job.request_id,
              .asset_ids = {assets.begin(), assets.end()},
              .server_version = job.server_version,
              .create_time = clock_.Now(),
              .start_timeout = job.start_timeout,
              .run_timeout = job.run_timeout,
              .result_ttl = job.result_ttl,
              .work = job.work};
  if (job.start_timeout != absl::InfiniteDuration()) {
    made.start_by = clock_.Now() + job.start_timeout;
  }
  Enter(made, JobState::kQueued, "");
  return absl::OkStatus();
}

std::optional<std::string> StoreModel::FindNext(const ReadyWorker& worker) const {
  for (const QueuedJob& job : Queue()) {
    if (job.retry_not_before <= clock_.Now() && worker.models.contains(job.model) &&
        !worker.unfit_jobs.contains(job.id)) {
      return job.id;
    }
  }
  return std::nullopt;
}

bool StoreModel::Claim(const std::string& id, const std::string& worker, absl::Duration start_left,
                       const std::string& made_token) {
  const auto found = jobs_.find(id);
  if (found == jobs_.end() || found->second.job.state != JobState::kQueued) return false;
  ModelJob& job = found->second;
  if (job.job.start_timeout != absl::InfiniteDuration()) {
    job.start_left = std::clamp(start_left, absl::ZeroDuration(), job.job.start_timeout);
  }
  Attempt attempt;
  attempt.number = static_cast<int>(job.job.attempts.size()) + 1;
  attempt.token = made_token;
  attempt.worker = worker;
  attempt.start_time = clock_.Now();
  job.job.attempts.push_back(attempt);
  if (!job.job.start_time) job.job.start_time = clock_.Now();
  Enter(job, JobState::kRunning, "");
  job.token = made_token;
  return true;
}

absl::Status StoreModel::CheckAttempt(const AttemptRef& ref) const {
  const bool is_running = const_cast<StoreModel*>(this)->Running(ref) != nullptr;
  return is_running ? absl::OkStatus() : absl::AbortedError(kReasonStaleAttempt);
}

absl::Status StoreModel::RecordStats(const AttemptRef& ref, const std::string& stats) {
  ModelJob* const job = Running(ref);
  if (job == nullptr) return absl::AbortedError(kReasonStaleAttempt);
  if (!stats.empty()) job->job.stats = stats;
  return absl::OkStatus();
}

absl::Status StoreModel::Commit(const AttemptRef& ref, const Artifact& artifact,
                                const std::string& stats) {
  ModelJob* const job = Running(ref);
  if (job == nullptr) return absl::AbortedError(kReasonStaleAttempt);
  if (!stats.empty()) job->job.stats = stats;
  if (job->job.cancel_requested) {
    EndAttempt(*job, FailureCause::kCancelled, absl::CancelledError("cancelled"));
    Enter(*job, JobState::kCancelled, "cancelled");
    return absl::OkStatus();
  }
  job->job.artifact = artifact;
  EndAttempt(*job, FailureCause::kNone, absl::OkStatus());
  Enter(*job, JobState::kSucceeded, "");
  return absl::OkStatus();
}

absl::Status StoreModel::Fail(const AttemptRef& ref, const AttemptFailure& failure,
                              std::optional<absl::Time> not_before) {
  ModelJob* const job = Running(ref);
  if (job == nullptr) return absl::AbortedError(kReasonStaleAttempt);
  if (!failure.stats.empty()) job->job.stats = failure.stats;
  job->job.failures = CountFailure(job->job.failures, failure.cause);
  // What follows is the policy's word; it is pure and has tests of its own.
  const FailedAttempt failed{.number = ref.attempt - job->uncounted_attempts,
                             .cause = failure.cause,
                             .error = failure.error,
                             .failures = job->job.failures,
                             .cancel_requested = job->job.cancel_requested};
  const RetryVerdict least = DecideAfterFailure(options_.retry, failed, 0);
  const RetryVerdict most = DecideAfterFailure(options_.retry, failed, 0.999999999);
  EndAttempt(*job, failure.cause, failure.error);
  job->job.attempts.back().evidence = failure.evidence;
  const std::map<JobTrigger, JobState> ends = {{JobTrigger::kAttemptLost, JobState::kQueued},
                                               {JobTrigger::kFailed, JobState::kFailed},
                                               {JobTrigger::kQuarantined, JobState::kQuarantined},
                                               {JobTrigger::kCancelled, JobState::kCancelled}};
  Enter(*job, ends.at(least.trigger), least.reason);
  if (least.trigger != JobTrigger::kAttemptLost) {
    job->job.error = least.error;
    return absl::OkStatus();
  }
  if (job->start_left) {
    job->start_by = clock_.Now() + *job->start_left;
    job->start_left.reset();
  }
  if (least.backoff > absl::ZeroDuration()) {
    const absl::Duration slack = absl::Microseconds(1);
    if (!not_before || *not_before < clock_.Now() + least.backoff - slack ||
        *not_before > clock_.Now() + most.backoff + slack) {
      return absl::InternalError(absl::StrCat("the store backs off until ", TimeText(not_before)));
    }
    job->job.retry_not_before = not_before;
  }
  return absl::OkStatus();
}

absl::Status StoreModel::Cancel(const std::string& tenant, const std::string& id) {
  const auto found = jobs_.find(id);
  if (found == jobs_.end() || found->second.job.tenant != tenant) return absl::NotFoundError("");
  ModelJob& job = found->second;
  if (job.job.state == JobState::kQueued) {
    job.job.cancel_requested = true;
    Enter(job, JobState::kCancelled, "cancelled");
  } else if (job.job.state == JobState::kRunning && !job.job.cancel_requested) {
    job.job.cancel_requested = true;
    const std::string token = job.token;
    Enter(job, JobState::kRunning, "cancel requested");
    job.token = token;
  }
  return absl::OkStatus();
}

absl::Status StoreModel::FailQueued(const std::string& id, const absl::Status& error) {
  const auto found = jobs_.find(id);
  if (found == jobs_.end()) return absl::NotFoundError("");
  if (found->second.job.state != JobState::kQueued) return absl::FailedPreconditionError("");
  found->second.job.error = error;
  Enter(found->second, JobState::kFailed, std::string(error.message()));
  return absl::OkStatus();
}

absl::Status StoreModel::Expire(const std::string& id) {
  const auto found = jobs_.find(id);
  if (found == jobs_.end()) return absl::NotFoundError("");
  ModelJob& job = found->second;
  if (job.job.state != JobState::kQueued) return absl::FailedPreconditionError("");
  job.job.error = absl::DeadlineExceededError(
      absl::StrCat("not started within ", absl::FormatDuration(job.job.start_timeout)));
  Enter(job, JobState::kExpired, "start_timeout passed");
  return absl::OkStatus();
}

absl::Status StoreModel::Requeue(const std::string& tenant, const std::string& id) {
  const auto found = jobs_.find(id);
  if (found == jobs_.end() || found->second.job.tenant != tenant) return absl::NotFoundError("");
  ModelJob& job = found->second;
  const JobState state = job.job.state;
  if ((state != JobState::kFailed && state != JobState::kQuarantined &&
       state != JobState::kExpired) ||
      HasGoneAsset(job)) {
    return absl::FailedPreconditionError(kReasonJobNotRequeuable);
  }
  job.job.failures = {};
  job.uncounted_attempts = static_cast<int>(job.job.attempts.size());
  RunAgain(job, "requeued");
  return absl::OkStatus();
}

int StoreModel::ForgiveCrashes(const std::vector<AttemptRef>& attempts) {
  const std::set<FailureCause> crashes = {FailureCause::kCrash, FailureCause::kHang,
                                          FailureCause::kDeviceLost};
  int forgiven = 0;
  for (const AttemptRef& ref : attempts) {
    const auto found = jobs_.find(ref.job_id);
    if (found == jobs_.end()) continue;
    ModelJob& job = found->second;
    const auto attempt = std::find_if(job.job.attempts.begin(), job.job.attempts.end(),
                                      [&](const Attempt& one) { return one.token == ref.token; });
    if (attempt == job.job.attempts.end() || attempt->number != ref.attempt ||
        ref.attempt <= job.uncounted_attempts || !crashes.contains(attempt->cause) ||
        !job.forgiven.insert(ref.attempt).second) {
      continue;
    }
    ++forgiven;
    --job.job.failures.crashes;
    ++job.job.failures.interruptions;
    if (job.job.state == JobState::kQuarantined &&
        job.job.failures.crashes < options_.retry.max_crashes &&
        job.job.failures.unclean_stops < options_.retry.max_unclean_stops && !HasGoneAsset(job)) {
      RunAgain(job, "the device was to blame");
    }
  }
  return forgiven;
}

absl::Status StoreModel::Delete(const std::string& tenant, const std::string& id,
                                std::string& file) {
  const auto found = jobs_.find(id);
  if (found == jobs_.end() || found->second.job.tenant != tenant) return absl::NotFoundError("");
  if (!IsTerminal(found->second.job.state)) {
    return absl::FailedPreconditionError(kReasonJobNotEnded);
  }
  file = found->second.job.artifact ? found->second.job.artifact->file_name : "";
  jobs_.erase(found);
  return absl::OkStatus();
}

bool StoreModel::PurgeResults(absl::Time ended_before, int limit,
                              const std::vector<std::string>& files) {
  const std::set<std::string> chosen(files.begin(), files.end());
  size_t may = 0, are = 0;
  for (auto& [id, job] : jobs_) {
    if (!job.job.artifact || !job.job.end_time) continue;
    const bool is_over = job.job.result_ttl
                             ? *job.job.end_time + *job.job.result_ttl <= clock_.Now()
                             : *job.job.end_time < ended_before;
    if (!is_over) continue;
    ++may;
    if (!chosen.contains(job.job.artifact->file_name)) continue;
    ++are;
    job.job.artifact.reset();
    job.job.artifact_purged = true;
  }
  return chosen.size() == files.size() && are == files.size() &&
         are == std::min(may, static_cast<size_t>(limit));
}

bool StoreModel::PurgeJobs(absl::Time ended_before, int limit, const std::set<std::string>& gone,
                           const PurgedJobs& purged) {
  size_t may = 0;
  absl::Time newest_gone = absl::InfinitePast(), oldest_left = absl::InfiniteFuture();
  std::set<std::string> files;
  for (const auto& [id, job] : jobs_) {
    if (!job.job.end_time || *job.job.end_time >= ended_before) {
      if (gone.contains(id)) return false;
      continue;
    }
    ++may;
    if (gone.contains(id)) {
      newest_gone = std::max(newest_gone, *job.job.end_time);
      if (job.job.artifact) files.insert(job.job.artifact->file_name);
    } else {
      oldest_left = std::min(oldest_left, *job.job.end_time);
    }
  }
  for (const std::string& id : gone) jobs_.erase(id);
  return gone.size() == std::min(may, static_cast<size_t>(limit)) &&
         static_cast<size_t>(purged.jobs) == gone.size() && newest_gone <= oldest_left &&
         purged.files.size() == files.size() &&
         std::set<std::string>(purged.files.begin(), purged.files.end()) == files;
}

absl::Status StoreModel::InsertAsset(const Asset& asset) {
  if (assets_.contains(asset.id)) return absl::AlreadyExistsError("");
  assets_[asset.id] = asset;
  assets_[asset.id].create_time = clock_.Now();
  return absl::OkStatus();
}

absl::Status StoreModel::DeleteAsset(const std::string& tenant, const std::string& id,
                                     std::string& file) {
  const auto found = assets_.find(id);
  if (found == assets_.end() || found->second.tenant != tenant) return absl::NotFoundError("");
  if (IsAssetUsed(id)) return absl::FailedPreconditionError(kReasonAssetInUse);
  file = found->second.file_name;
  assets_.erase(found);
  return absl::OkStatus();
}

bool StoreModel::DeleteUnusedAssets(absl::Time created_before, int limit,
                                    const std::vector<std::string>& files) {
  const std::set<std::string> chosen(files.begin(), files.end());
  size_t may = 0, are = 0;
  for (auto asset = assets_.begin(); asset != assets_.end();) {
    const bool is_old = asset->second.create_time < created_before && !IsAssetUsed(asset->first);
    const bool is_chosen = chosen.contains(asset->second.file_name);
    if (is_old) ++may;
    if (is_old && is_chosen) ++are;
    asset = is_old && is_chosen ? assets_.erase(asset) : std::next(asset);
  }
  return are == files.size() && are == std::min(may, static_cast<size_t>(limit));
}

std::vector<std::string> StoreModel::List(const JobFilter& filter) const {
  std::vector<const ModelJob*> found;
  for (const auto& [id, job] : jobs_) {
    const bool has_state =
        filter.states.empty() ||
        std::count(filter.states.begin(), filter.states.end(), job.job.state) > 0;
    const bool has_labels =
        std::all_of(filter.labels.begin(), filter.labels.end(), [&job = job](const auto& label) {
          const auto own = job.job.labels.find(label.first);
          return own != job.job.labels.end() && own->second == label.second;
        });
    if (has_state && has_labels && (filter.tenant.empty() || filter.tenant == job.job.tenant) &&
        (filter.model.empty() || filter.model == job.job.model)) {
      found.push_back(&job);
    }
  }
  std::sort(found.begin(), found.end(),
            [](const ModelJob* a, const ModelJob* b) { return a->order > b->order; });
  std::vector<std::string> ids;
  for (const ModelJob* job : found) ids.push_back(job->job.id);
  return ids;
}

std::map<std::string, int64_t> StoreModel::DiskUse() const {
  std::map<std::string, int64_t> bytes;
  for (const auto& [id, job] : jobs_) {
    if (job.job.artifact) bytes[job.job.tenant] += job.job.artifact->size_bytes;
  }
  for (const auto& [id, asset] : assets_) bytes[asset.tenant] += asset.size_bytes;
  std::erase_if(bytes, [](const auto& tenant) { return tenant.second == 0; });
  return bytes;
}

std::vector<QueuedJob> StoreModel::Queue() const {
  std::vector<QueuedJob> queue;
  for (const auto& [id, job] : jobs_) {
    if (job.job.state != JobState::kQueued) continue;
    QueuedJob& queued = queue.emplace_back();
    queued = {.id = id,
              .model = job.job.model,
              .priority = job.job.priority,
              .order = job.order,
              .tenant = job.job.tenant,
              .work = job.job.work};
    if (job.start_by) queued.start_deadline = *job.start_by;
    if (job.job.retry_not_before &&
        *job.job.retry_not_before <= clock_.Now() + 2 * options_.retry.max_backoff) {
      queued.retry_not_before = *job.job.retry_not_before;
    }
  }
  std::sort(queue.begin(), queue.end(), [](const QueuedJob& a, const QueuedJob& b) {
    return a.priority != b.priority ? a.priority > b.priority : a.order < b.order;
  });
  return queue;
}

std::optional<std::string> StoreModel::FindByRequestId(const std::string& tenant,
                                                       const std::string& request_id) const {
  for (const auto& [id, job] : jobs_) {
    if (!request_id.empty() && job.job.tenant == tenant && job.job.request_id == request_id) {
      return id;
    }
  }
  return std::nullopt;
}

std::set<std::string> StoreModel::LiveFiles() const {
  std::set<std::string> files;
  for (const auto& [id, job] : jobs_) {
    if (job.job.artifact) files.insert(job.job.artifact->file_name);
  }
  for (const auto& [id, asset] : assets_) files.insert(asset.file_name);
  return files;
}

}  // namespace kino::scheduler
