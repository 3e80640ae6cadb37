#include "server/config/worker_threads.h"

#include <algorithm>

namespace kino::config {

int WorkerThreads(const Config& config, const WorkerConfig& worker, int cores) {
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

}  // namespace kino::config
