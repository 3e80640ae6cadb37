#include "server/frontend/metrics/metrics.h"

#include <exception>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace kino::frontend {
namespace {

// For what takes milliseconds where all is well.
const prometheus::Histogram::BucketBoundaries& ShortSeconds() {
  static const auto* buckets = new prometheus::Histogram::BucketBoundaries{
      0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30};
  return *buckets;
}

// Jobs take minutes, steps fractions of a second: from 10 ms to an hour, two or three steps a
// decade.
const prometheus::Histogram::BucketBoundaries& Seconds() {
  static const auto* buckets = new prometheus::Histogram::BucketBoundaries{
      0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,    2.5,  5,   10,
      20,   30,    60,   120, 300,  600, 1200, 1800, 3600};
  return *buckets;
}

// Tenants that have series of their own.
constexpr size_t kMaxTenants = 50;
constexpr char kOtherTenants[] = "other";

constexpr char kSucceeded[] = "succeeded";
constexpr scheduler::JobState kEnds[] = {
    scheduler::JobState::kSucceeded, scheduler::JobState::kFailed, scheduler::JobState::kCancelled,
    scheduler::JobState::kExpired, scheduler::JobState::kQuarantined};

std::string LowerCase(const std::string& text) { return absl::AsciiStrToLower(text); }

template <typename Builder>
auto& Make(Builder builder, prometheus::Registry& registry, const std::string& name,
           const std::string& help) {
  return builder.Name(name).Help(help).Register(registry);
}

// Whether it may be what a worker has measured. Nonsense, NaN among it, would spoil a sum for good.
bool IsTime(double seconds) {
  constexpr double kLongest = 1e9;
  return seconds >= 0 && seconds < kLongest;
}

void Observe(prometheus::Histogram& histogram, double seconds) {
  if (IsTime(seconds)) histogram.Observe(seconds);
}

void Count(prometheus::Counter& counter, double seconds) {
  if (IsTime(seconds)) counter.Increment(seconds);
}

}  // namespace

Metrics::Metrics()
    : registry_(std::make_shared<prometheus::Registry>()),
      queue_depth_(Make(prometheus::BuildGauge(), *registry_, "kino_queue_depth",
                        "Queued jobs by priority class.")),
      jobs_(Make(prometheus::BuildGauge(), *registry_, "kino_jobs", "Jobs in the store by state.")),
      queue_wait_(Make(prometheus::BuildHistogram(), *registry_, "kino_queue_wait_seconds",
                       "Seconds from submission to the first attempt, by priority class.")),
      jobs_ended_(Make(prometheus::BuildCounter(), *registry_, "kino_jobs_ended_total",
                       "Jobs that ended, by final state.")),
      job_seconds_(Make(prometheus::BuildHistogram(), *registry_, "kino_job_seconds",
                        "Seconds from submission to the end, by final state.")),
      attempts_(Make(prometheus::BuildCounter(), *registry_, "kino_attempts_ended_total",
                     "Attempts that ended, by result.")),
      stage_seconds_(Make(prometheus::BuildHistogram(), *registry_, "kino_stage_seconds",
                          "Seconds of each stage of an attempt, by model and stage.")),
      step_seconds_(Make(prometheus::BuildHistogram(), *registry_, "kino_step_seconds",
                         "Seconds of each denoise step, by model.")),
      first_chunk_seconds_(Make(prometheus::BuildHistogram(), *registry_,
                                "kino_first_chunk_seconds",
                                "Seconds from an attempt's start to its first bytes, by model.")),
      device_seconds_(Make(prometheus::BuildCounter(), *registry_, "kino_device_seconds_total",
                           "Seconds that devices worked on attempts, whatever became of them, by "
                           "model.")),
      output_seconds_(Make(prometheus::BuildCounter(), *registry_, "kino_output_seconds_total",
                           "Seconds of video that came out, by model.")),
      worker_up_(Make(prometheus::BuildGauge(), *registry_, "kino_worker_up",
                      "1 while the worker is connected.")),
      memory_used_(Make(prometheus::BuildGauge(), *registry_, "kino_device_memory_used_bytes",
                        "Memory in use on the worker's device.")),
      memory_total_(Make(prometheus::BuildGauge(), *registry_, "kino_device_memory_bytes",
                         "Memory of the worker's device.")),
      device_out_(Make(prometheus::BuildGauge(), *registry_, "kino_device_out",
                       "1 while the worker's device is out of service.")),
      spool_bytes_(Make(prometheus::BuildGauge(), *registry_, "kino_spool_bytes",
                        "Bytes that the worker keeps until the frontend has them.")),
      load_seconds_(Make(prometheus::BuildHistogram(), *registry_, "kino_model_load_seconds",
                         "Seconds of each load of a model on a worker, by model.")),
      tenant_jobs_(Make(prometheus::BuildGauge(), *registry_, "kino_tenant_jobs",
                        "Queued and running jobs of the first 50 tenants; those of the others "
                        "together as tenant 'other'.")),
      certificate_expiry_(Make(prometheus::BuildGauge(), *registry_,
                               "kino_certificate_expiry_timestamp_seconds",
                               "When the listener's certificate ends; absent without TLS.")),
      cancel_seconds_(Make(prometheus::BuildHistogram(), *registry_, "kino_cancel_seconds",
                           "Seconds from the order to cancel a running job until its worker is "
                           "free.")
                          .Add({}, ShortSeconds())),
      commit_seconds_(Make(prometheus::BuildHistogram(), *registry_, "kino_store_commit_seconds",
                           "Seconds of each transaction of the job store.")
                          .Add({}, ShortSeconds())),
      disk_free_(Make(prometheus::BuildGauge(), *registry_, "kino_disk_free_bytes",
                      "Free on the data folder's disk.")
                     .Add({})),
      disk_used_(Make(prometheus::BuildGauge(), *registry_, "kino_disk_used_bytes",
                      "Taken by videos and uploads.")
                     .Add({})),
      bytes_streamed_(Make(prometheus::BuildCounter(), *registry_, "kino_streamed_bytes_total",
                           "Bytes of video sent to clients.")
                          .Add({})),
      watchers_(Make(prometheus::BuildGauge(), *registry_, "kino_watchers",
                     "Streams that watch a job now.")
                    .Add({})),
      connections_(Make(prometheus::BuildGauge(), *registry_, "kino_connections",
                        "Connections of clients that are open.")
                       .Add({})),
      workers_killed_(Make(prometheus::BuildCounter(), *registry_, "kino_workers_killed_total",
                           "Workers that were killed because they were stuck.")
                          .Add({})),
      stale_messages_(Make(prometheus::BuildCounter(), *registry_, "kino_stale_messages_total",
                           "Workers' messages refused because their attempt was not theirs.")
                          .Add({})) {
  // What has not happened yet is counted as 0: who looks at the increase misses no first time.
  for (const scheduler::JobState state : kEnds)
    jobs_ended_.Add({{"state", LowerCase(scheduler::JobStateName(state))}});
  attempts_.Add({{"result", kSucceeded}});
  for (int cause = 1; cause <= static_cast<int>(scheduler::FailureCause::kUncleanStop); ++cause) {
    attempts_.Add({{"result", LowerCase(scheduler::FailureCauseName(
                                  static_cast<scheduler::FailureCause>(cause)))}});
  }
}

absl::StatusOr<std::string> Metrics::Listen(const std::string& address) {
  // prometheus-cpp's server throws when it cannot bind; nothing of it leaves this function.
  try {
    exposer_ = std::make_unique<prometheus::Exposer>(address, 2);
    exposer_->RegisterCollectable(registry_);
    const std::vector<int> ports = exposer_->GetListeningPorts();
    if (ports.empty()) return absl::UnavailableError("the metrics listener has no port");
    return absl::StrCat(address.substr(0, address.rfind(':')), ":", ports[0]);
  } catch (const std::exception& e) {
    return absl::UnavailableError(
        absl::StrCat("metrics address '", address, "' cannot be listened on: ", e.what()));
  }
}

void Metrics::SetQueue(const scheduler::QueueLoad& load) {
  for (const auto& [priority, count] : load.queued) {
    queue_depth_.Add({{"class", LowerCase(scheduler::PriorityName(priority))}})
        .Set(static_cast<double>(count));
  }
  for (const auto& [state, count] : load.jobs) {
    jobs_.Add({{"state", LowerCase(scheduler::JobStateName(state))}})
        .Set(static_cast<double>(count));
  }
}

void Metrics::SetWatchers(int watchers) { watchers_.Set(watchers); }

void Metrics::JobStarted(scheduler::Priority priority, absl::Duration waited) {
  queue_wait_.Add({{"class", LowerCase(scheduler::PriorityName(priority))}}, Seconds())
      .Observe(absl::ToDoubleSeconds(waited));
}

void Metrics::JobEnded(const scheduler::Job& job) {
  const std::string state = LowerCase(scheduler::JobStateName(job.state));
  jobs_ended_.Add({{"state", state}}).Increment();
  if (job.end_time.has_value()) {
    job_seconds_.Add({{"state", state}}, Seconds())
        .Observe(absl::ToDoubleSeconds(*job.end_time - job.create_time));
  }
}

void Metrics::AttemptEnded(const std::string& result) {
  attempts_.Add({{"result", LowerCase(result)}}).Increment();
}

void Metrics::AttemptStages(const std::string& model,
                            const google::protobuf::RepeatedPtrField<v1::StageStats>& stages) {
  for (const v1::StageStats& stage : stages) {
    Count(device_seconds_.Add({{"model", model}}), stage.seconds());
    Observe(stage_seconds_.Add(
                {{"model", model}, {"stage", LowerCase(v1::Stage_Name(stage.stage()))}}, Seconds()),
            stage.seconds());
  }
}

void Metrics::AttemptDone(const std::string& model, const v1::AttemptDone& done) {
  const v1::Artifact& artifact = done.artifact();
  if (artifact.fps() > 0)
    Count(output_seconds_.Add({{"model", model}}), artifact.num_frames() / artifact.fps());
  prometheus::Histogram& steps = step_seconds_.Add({{"model", model}}, Seconds());
  for (const double seconds : done.step_seconds()) Observe(steps, seconds);
  Observe(first_chunk_seconds_.Add({{"model", model}}, Seconds()), done.first_chunk_seconds());
}

void Metrics::BytesStreamed(int64_t bytes) {
  bytes_streamed_.Increment(static_cast<double>(bytes));
}

void Metrics::SetWorkerUp(const std::string& worker, const std::string& device, bool is_up) {
  worker_up_.Add({{"worker", worker}, {"device", device}}).Set(is_up ? 1 : 0);
}

void Metrics::SetDeviceMemory(const std::string& worker, const std::string& device,
                              int64_t used_bytes, int64_t total_bytes) {
  const prometheus::Labels labels = {{"worker", worker}, {"device", device}};
  memory_used_.Add(labels).Set(static_cast<double>(used_bytes));
  memory_total_.Add(labels).Set(static_cast<double>(total_bytes));
}

void Metrics::SetDeviceOut(const std::string& worker, const std::string& device, bool is_out) {
  device_out_.Add({{"worker", worker}, {"device", device}}).Set(is_out ? 1 : 0);
}

void Metrics::SetSpool(const std::string& worker, int64_t bytes) {
  spool_bytes_.Add({{"worker", worker}}).Set(static_cast<double>(bytes));
}

void Metrics::ModelLoaded(const std::string& model, double seconds) {
  Observe(load_seconds_.Add({{"model", model}}, Seconds()), seconds);
}

void Metrics::AttemptCancelled(absl::Duration took) {
  cancel_seconds_.Observe(absl::ToDoubleSeconds(took));
}

void Metrics::StoreCommitted(absl::Duration took) {
  commit_seconds_.Observe(absl::ToDoubleSeconds(took));
}

void Metrics::SetDisk(int64_t free_bytes, int64_t used_bytes) {
  disk_free_.Set(static_cast<double>(free_bytes));
  disk_used_.Set(static_cast<double>(used_bytes));
}

void Metrics::SetTenants(const std::map<std::string, scheduler::TenantJobs>& tenants) {
  std::map<std::string, scheduler::TenantJobs> shown;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [tenant, jobs] : tenants) {
      if (named_tenants_.size() < kMaxTenants) named_tenants_.insert(tenant);
      scheduler::TenantJobs& sum = shown[named_tenants_.contains(tenant) ? tenant : kOtherTenants];
      sum.queued += jobs.queued;
      sum.running += jobs.running;
    }
    // One that has none any more says so.
    for (const std::string& tenant : named_tenants_) shown.try_emplace(tenant);
    if (named_tenants_.size() == kMaxTenants) shown.try_emplace(kOtherTenants);
  }
  for (const auto& [tenant, jobs] : shown) {
    tenant_jobs_.Add({{"tenant", tenant}, {"state", "queued"}})
        .Set(static_cast<double>(jobs.queued));
    tenant_jobs_.Add({{"tenant", tenant}, {"state", "running"}})
        .Set(static_cast<double>(jobs.running));
  }
}

void Metrics::SetCertificateExpiry(absl::Time time) {
  certificate_expiry_.Add({}).Set(absl::ToDoubleSeconds(time - absl::UnixEpoch()));
}

void Metrics::SetConnections(int open) { connections_.Set(open); }

void Metrics::WorkerKilled() { workers_killed_.Increment(); }

void Metrics::StaleMessage() { stale_messages_.Increment(); }

}  // namespace kino::frontend
