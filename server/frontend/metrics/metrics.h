// The frontend's Prometheus metrics and the HTTP listener that serves them. Labels are few and
// known: class, state, model, stage, worker, device, result; never a job, a tenant or a prompt.
// Thread-safe (prometheus-cpp's own locks).
#pragma once

#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kino/v1/worker.pb.h"
#include "scheduler/jobs/job.h"
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
  void AttemptSteps(const std::string& model, const v1::AttemptDone& done);
  void BytesStreamed(int64_t bytes);
  void SetWorkerUp(const std::string& worker, const std::string& device, bool is_up);
  void SetDeviceMemory(const std::string& worker, const std::string& device, int64_t used_bytes,
                       int64_t total_bytes);
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
  prometheus::Family<prometheus::Gauge>& worker_up_;
  prometheus::Family<prometheus::Gauge>& memory_used_;
  prometheus::Family<prometheus::Gauge>& memory_total_;
  prometheus::Counter& bytes_streamed_;
  prometheus::Gauge& watchers_;
  prometheus::Counter& workers_killed_;
  prometheus::Counter& stale_messages_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace kino::frontend
