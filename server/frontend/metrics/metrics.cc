#include "server/frontend/metrics/metrics.h"

#include <exception>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace kino::frontend {
namespace {

// Jobs take minutes, steps fractions of a second: from 10 ms to an hour, two or three steps a
// decade.
const prometheus::Histogram::BucketBoundaries& Seconds() {
  static const auto* buckets = new prometheus::Histogram::BucketBoundaries{
      0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,    2.5,  5,   10,
      20,   30,    60,   120, 300,  600, 1200, 1800, 3600};
  return *buckets;
}

std::string LowerCase(const std::string& text) { return absl::AsciiStrToLower(text); }

template <typename Builder>
auto& Make(Builder builder, prometheus::Registry& registry, const std::string& name,
           const std::string& help) {
  return builder.Name(name).Help(help).Register(registry);
}

// What a worker says that it measured. Nonsense, NaN among it, would spoil the sum for good.
void Observe(prometheus::Histogram& histogram, double seconds) {
  constexpr double kLongest = 1e9;
  if (seconds >= 0 && seconds < kLongest) histogram.Observe(seconds);
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
      worker_up_(Make(prometheus::BuildGauge(), *registry_, "kino_worker_up",
                      "1 while the worker is connected.")),
      memory_used_(Make(prometheus::BuildGauge(), *registry_, "kino_device_memory_used_bytes",
                        "Memory in use on the worker's device.")),
      memory_total_(Make(prometheus::BuildGauge(), *registry_, "kino_device_memory_bytes",
                         "Memory of the worker's device.")),
      bytes_streamed_(Make(prometheus::BuildCounter(), *registry_, "kino_streamed_bytes_total",
                           "Bytes of video sent to clients.")
                          .Add({})),
      watchers_(Make(prometheus::BuildGauge(), *registry_, "kino_watchers",
                     "Streams that watch a job now.")
                    .Add({})),
      workers_killed_(Make(prometheus::BuildCounter(), *registry_, "kino_workers_killed_total",
                           "Workers that were killed because they were stuck.")
                          .Add({})),
      stale_messages_(Make(prometheus::BuildCounter(), *registry_, "kino_stale_messages_total",
                           "Workers' messages refused because their attempt was not theirs.")
                          .Add({})) {}

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
    Observe(stage_seconds_.Add(
                {{"model", model}, {"stage", LowerCase(v1::Stage_Name(stage.stage()))}}, Seconds()),
            stage.seconds());
  }
}

void Metrics::AttemptSteps(const std::string& model, const v1::AttemptDone& done) {
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

void Metrics::WorkerKilled() { workers_killed_.Increment(); }

void Metrics::StaleMessage() { stale_messages_.Increment(); }

}  // namespace kino::frontend
