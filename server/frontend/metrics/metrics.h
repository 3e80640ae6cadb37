// The frontend's Prometheus metrics and the HTTP listener that serves them. Labels are few and
// known: class, state, model, stage, worker, device, result, and the first tenants; never a job or
// a prompt. Thread-safe (prometheus-cpp's own locks).
#pragma once

#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <map>
#include <memory>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "kino/v1/worker.pb.h"
#include "scheduler/jobs/job.h"
#include "scheduler/queue/job_queue.h"
#include "scheduler/store/job_store.h"

namespace kino::frontend {

class Metrics {
 public:
  Metrics();

  // Listens on host:port (port 0: a free one) and returns the real address. UNAVAILABLE: the
  // address is taken.
  absl::StatusOr<std::string> Listen(const std::string& address);

  void SetQueue(const scheduler::QueueLoad& load);
  void SetWatchers(int watchers);
  void JobStarted(scheduler::Priority priority, absl::Duration waited);
  void JobEnded(const scheduler::Job& job);
  // `result` is "succeeded" or a failure cause's name in lower case.
  void AttemptEnded(const std::string& result);
  void AttemptStages(const std::string& model,
                     const google::protobuf::RepeatedPtrField<v1::StageStats>& stages);
  // What an attempt that succeeded has made, and how.
  void AttemptDone(const std::string& model, const v1::AttemptDone& done);
  void BytesStreamed(int64_t bytes);
  void SetWorkerUp(const std::string& worker, const std::string& device, bool is_up);
  void SetDeviceMemory(const std::string& worker, const std::string& device, int64_t used_bytes,
                       int64_t total_bytes);
  void SetDeviceOut(const std::string& worker, const std::string& device, bool is_out);
  // What the worker keeps until the frontend has it.
  void SetSpool(const std::string& worker, int64_t bytes);
  void ModelLoaded(const std::string& model, double seconds);
  // From the order to stop until the attempt's end was heard of.
  void AttemptCancelled(absl::Duration took);
  void StoreCommitted(absl::Duration took);
  // Free on the data folder's disk, and taken by videos and uploads.
  void SetDisk(int64_t free_bytes, int64_t used_bytes);
  // Queued and running jobs. The first tenants are named; the others' sums are those of "other".
  void SetTenants(const std::map<std::string, scheduler::TenantJobs>& tenants);
  // Of the listener's certificate.
  void SetCertificateExpiry(absl::Time time);
  void SetConnections(int open);
  void WorkerKilled();
  void StaleMessage();

  const std::shared_ptr<prometheus::Registry>& registry() const { return registry_; }

 private:
  std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Gauge>& queue_depth_;
  prometheus::Family<prometheus::Gauge>& jobs_;
  prometheus::Family<prometheus::Histogram>& queue_wait_;
  prometheus::Family<prometheus::Counter>& jobs_ended_;
  prometheus::Family<prometheus::Histogram>& job_seconds_;
  prometheus::Family<prometheus::Counter>& attempts_;
  prometheus::Family<prometheus::Histogram>& stage_seconds_;
  prometheus::Family<prometheus::Histogram>& step_seconds_;
  prometheus::Family<prometheus::Histogram>& first_chunk_seconds_;
  prometheus::Family<prometheus::Counter>& device_seconds_;
  prometheus::Family<prometheus::Counter>& output_seconds_;
  prometheus::Family<prometheus::Gauge>& worker_up_;
  prometheus::Family<prometheus::Gauge>& memory_used_;
  prometheus::Family<prometheus::Gauge>& memory_total_;
  prometheus::Family<prometheus::Gauge>& device_out_;
  prometheus::Family<prometheus::Gauge>& spool_bytes_;
  prometheus::Family<prometheus::Histogram>& load_seconds_;
  prometheus::Family<prometheus::Gauge>& tenant_jobs_;
  prometheus::Family<prometheus::Gauge>& certificate_expiry_;
  prometheus::Histogram& cancel_seconds_;
  prometheus::Histogram& commit_seconds_;
  prometheus::Gauge& disk_free_;
  prometheus::Gauge& disk_used_;
  prometheus::Counter& bytes_streamed_;
  prometheus::Gauge& watchers_;
  prometheus::Gauge& connections_;
  prometheus::Counter& workers_killed_;
  prometheus::Counter& stale_messages_;
  absl::Mutex mutex_;
  std::set<std::string> named_tenants_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace kino::frontend
