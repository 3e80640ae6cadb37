#include "server/frontend/rpc/jobs.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "scheduler/fault_point.h"
#include "scheduler/store/job_store.h"
#include "server/convert/status.h"
#include "server/frontend/rpc/job_view.h"

namespace kino::frontend {
namespace {

constexpr int kDefaultPageSize = 100;
constexpr int kMaxPageSize = 1000;
// Below the 4 MiB that clients take by default.
constexpr size_t kMaxPageBytes = 3 << 20;
// Jobs read from the store at a time. Of the largest ones so many are a few times a page.
constexpr int kReadAtATime = 16;
// Jobs cancelled at a time: a batch waits for one or two transactions.
constexpr int kCancelAtATime = 16;
constexpr int kMaxToldIds = 1000;

v1::Job View(const Context& context, const scheduler::Job& job) {
  v1::Job out = ToProto(job, context.config.retention.results);
  if (job.state == scheduler::JobState::kQueued) {
    FillStanding(context.queue.Find(job), context.clock.Now(), out);
  } else if (job.state == scheduler::JobState::kRunning) {
    const LiveView live = context.hub.View(job.id);
    if (live.progress != nullptr && live.progress->has_eta())
      *out.mutable_eta() = live.progress->eta();
  }
  return out;
}

// The jobs of one CancelJobs call, batch after batch.
class CancelRun : public std::enable_shared_from_this<CancelRun> {
 public:
  CancelRun(const Context& context, scheduler::JobFilter filter, std::function<bool()> is_abandoned,
            CancelJobsDone done)
      : context_(context),
        filter_(std::move(filter)),
        is_abandoned_(std::move(is_abandoned)),
        done_(std::move(done)) {}

  void NextBatch() {
    if (is_abandoned_()) return done_(absl::CancelledError("the caller has gone"));
    absl::StatusOr<scheduler::JobPage> page =
        context_.store.List(filter_, kCancelAtATime, page_token_);
    if (!page.ok()) return done_(page.status());
    const absl::Status cancelled = CancelAll(page->jobs);
    if (!cancelled.ok()) return done_(cancelled);
    page_token_ = page->next_page_token;
    if (page_token_.empty()) return done_(std::move(response_));
    context_.slow.Post([self = shared_from_this()] { self->NextBatch(); });
  }

 private:
  // All are asked for before the first is waited for, so that they share transactions.
  absl::Status CancelAll(const std::vector<scheduler::Job>& jobs) {
    struct Batch {
      absl::Mutex mutex;
      int open ABSL_GUARDED_BY(mutex) = 0;
      std::vector<absl::StatusOr<scheduler::Job>> results ABSL_GUARDED_BY(mutex);
    };
    Batch batch;
    for (const scheduler::Job& job : jobs) {
      if (job.cancel_requested) continue;
      {
        absl::MutexLock lock(&batch.mutex);
        ++batch.open;
      }
      context_.store.Cancel(filter_.tenant, job.id,
                            [&batch](absl::StatusOr<scheduler::Job> result) {
                              absl::MutexLock lock(&batch.mutex);
                              batch.results.push_back(std::move(result));
                              --batch.open;
                            });
    }
    const auto is_over = [&batch]()
                             ABSL_EXCLUSIVE_LOCKS_REQUIRED(batch.mutex) { return batch.open == 0; };
    absl::MutexLock lock(&batch.mutex, absl::Condition(&is_over));
    absl::Status status;
    for (const absl::StatusOr<scheduler::Job>& result : batch.results) {
      // It was deleted meanwhile, so it had ended.
      if (absl::IsNotFound(result.status())) continue;
      status.Update(result.status());
      if (!result.ok() || !result->cancel_requested) continue;
      if (result->state == scheduler::JobState::kRunning) context_.link.CancelRunning(result->id);
      response_.set_count(response_.count() + 1);
      if (response_.ids_size() < kMaxToldIds) response_.add_ids(result->id);
    }
    return status;
  }

  const Context& context_;
  const scheduler::JobFilter filter_;
  const std::function<bool()> is_abandoned_;
  CancelJobsDone done_;
  std::string page_token_;
  v1::CancelJobsResponse response_;
};

}  // namespace

absl::StatusOr<v1::Job> GetJob(const Context& context, const std::string& tenant,
                               const std::string& id) {
  const absl::StatusOr<scheduler::Job> job = context.store.Get(tenant, id);
  if (!job.ok()) return job.status();
  return View(context, *job);
}

absl::StatusOr<v1::ListJobsResponse> ListJobs(const Context& context, const std::string& tenant,
                                              const v1::ListJobsRequest& request) {
  if (request.page_size() < 0 || request.page_size() > kMaxPageSize) {
    return convert::InvalidRequest({{"page_size", absl::StrCat("expected 0 to ", kMaxPageSize,
                                                               ", got ", request.page_size())}});
  }
  scheduler::JobFilter filter{
      .tenant = tenant, .states = {}, .model = request.model(), .labels = {}};
  for (int i = 0; i < request.states_size(); ++i) {
    if (request.states(i) == v1::JOB_STATE_UNSPECIFIED) {
      return convert::InvalidRequest({{absl::StrCat("states[", i, "]"), "expected a state"}});
    }
    filter.states.push_back(static_cast<scheduler::JobState>(request.states(i)));
  }
  filter.labels.insert(request.labels().begin(), request.labels().end());
  const int page_size = request.page_size() == 0 ? kDefaultPageSize : request.page_size();

  v1::ListJobsResponse response;
  std::string token = request.page_token();
  size_t bytes = 0;
  while (response.jobs_size() < page_size) {
    const int wanted = std::min(kReadAtATime, page_size - response.jobs_size());
    const absl::StatusOr<scheduler::JobPage> part = context.store.List(filter, wanted, token);
    if (!part.ok()) return part.status();
    std::vector<v1::Job> jobs;
    for (const scheduler::Job& job : part->jobs) {
      v1::Job view = View(context, job);
      bytes += view.ByteSizeLong();
      // One job has to be told, however large it is.
      if (bytes > kMaxPageBytes && (response.jobs_size() > 0 || !jobs.empty())) break;
      jobs.push_back(std::move(view));
    }
    const int taken = static_cast<int>(jobs.size());
    for (v1::Job& job : jobs) *response.add_jobs() = std::move(job);
    if (taken == static_cast<int>(part->jobs.size())) {
      token = part->next_page_token;
      if (token.empty()) break;
      continue;
    }
    // The page is full in the middle of what was read. Only the store can tell where to go on.
    if (taken > 0) {
      const absl::StatusOr<scheduler::JobPage> cut = context.store.List(filter, taken, token);
      if (!cut.ok()) return cut.status();
      token = cut->next_page_token;
    }
    break;
  }
  response.set_next_page_token(token);
  return response;
}

absl::StatusOr<v1::Job> CancelJob(const Context& context, const std::string& tenant,
                                  const std::string& id) {
  const absl::StatusOr<scheduler::Job> job = context.store.Cancel(tenant, id);
  if (!job.ok()) return job.status();
  KINO_FAULT_POINT("frontend.cancel.stored");
  if (job->state == scheduler::JobState::kRunning) context.link.CancelRunning(job->id);
  return View(context, *job);
}

absl::StatusOr<v1::Job> RequeueJob(const Context& context, const std::string& tenant,
                                   const std::string& id) {
  const absl::StatusOr<scheduler::Job> job = context.store.Requeue(tenant, id);
  if (!job.ok()) return job.status();
  return View(context, *job);
}

void CancelJobs(const Context& context, const std::string& tenant,
                const v1::CancelJobsRequest& request, std::function<bool()> is_abandoned,
                CancelJobsDone done) {
  if (request.states().empty() && request.model().empty() && request.labels().empty()) {
    return done(convert::InvalidRequest(
        {{"states, model, labels",
          "expected at least one condition; for all jobs name both states, QUEUED and RUNNING"}}));
  }
  scheduler::JobFilter filter{
      .tenant = tenant, .states = {}, .model = request.model(), .labels = {}};
  for (int i = 0; i < request.states_size(); ++i) {
    if (request.states(i) != v1::QUEUED && request.states(i) != v1::RUNNING) {
      return done(convert::InvalidRequest(
          {{absl::StrCat("states[", i, "]"), "expected QUEUED or RUNNING; others have ended"}}));
    }
    filter.states.push_back(static_cast<scheduler::JobState>(request.states(i)));
  }
  if (filter.states.empty()) {
    filter.states = {scheduler::JobState::kQueued, scheduler::JobState::kRunning};
  }
  filter.labels.insert(request.labels().begin(), request.labels().end());
  std::make_shared<CancelRun>(context, std::move(filter), std::move(is_abandoned), std::move(done))
      ->NextBatch();
}

absl::Status DeleteJob(const Context& context, const std::string& tenant, const std::string& id) {
  const absl::StatusOr<std::string> file = context.store.Delete(tenant, id);
  if (!file.ok()) return file.status();
  if (!file->empty()) context.files.RemoveVideo(*file);
  return absl::OkStatus();
}

}  // namespace kino::frontend
