#include "server/supervisor/check.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/describe/describe.h"
#include "server/config/effective_plan.h"
#include "server/config/worker_threads.h"

namespace kino::supervisor {

absl::StatusOr<std::string> CheckConfig(const config::Config& config) {
  std::string summary =
      absl::StrCat("configuration: ", config.file, "\ndata folder:   ", config.data_dir,
                   "\nlisten:        ", config.listen.address,
                   config.auth.required() ? " (bearer token)" : " (no token)",
                   "\nmetrics:       ", config.metrics.address, "\n");
  for (const config::WorkerConfig& worker : config.workers) {
    const int threads = config::WorkerThreads(config, worker);
    absl::StrAppend(&summary, "worker:        ", worker.name, " on ", worker.device, ", ", threads,
                    threads == 1 ? " thread\n" : " threads\n");
  }
  std::vector<std::string> problems;
  for (const config::ModelConfig& model : config.models) {
    const absl::StatusOr<engine::ModelDescription> description =
        engine::DescribeModel(model.folder, model.original_files, model.variant);
    const absl::Status status =
        description.ok() ? config::CheckModelPlan(model, *description) : description.status();
    if (!status.ok()) {
      problems.push_back(
          absl::StrCat(model.source, ": model '", model.name, "': ", status.message()));
      continue;
    }
    int64_t bytes = 0;
    for (const engine::ComponentDescription& component : description->components) {
      bytes += component.weight_bytes;
    }
    absl::StrAppendFormat(&summary, "model:         %s: %s (%s), %.1f MiB of weights, dtype %s\n",
                          model.name, description->family, description->pipeline_class,
                          static_cast<double>(bytes) / (1 << 20), model.dtype.ToString());
  }
  if (config.models.empty()) absl::StrAppend(&summary, "model:         none configured\n");
  if (!problems.empty()) {
    return absl::FailedPreconditionError(absl::StrJoin(problems, "\n"));
  }
  return summary;
}

}  // namespace kino::supervisor
