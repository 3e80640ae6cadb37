#include "server/config/worker_threads.h"

#include <algorithm>

#include "engine/core/machine.h"

namespace kino::config {

int CoresOf(const Config& config, const WorkerConfig& worker, int cores) {
  if (worker.threads > 0) return worker.threads;
  if (worker.device != "cpu") return cores;
  int left = cores;
  int sharers = 0;
  for (const WorkerConfig& other : config.workers) {
    if (other.device != "cpu") continue;
    left -= other.threads;
    if (other.threads == 0) ++sharers;
  }
  return std::max(1, left / std::max(1, sharers));
}

int WorkerThreads(const Config& config, const WorkerConfig& worker) {
  if (worker.threads > 0) return worker.threads;
  return engine::DefaultThreads(CoresOf(config, worker, engine::UsableCores()));
}

}  // namespace kino::config
