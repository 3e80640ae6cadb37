// kino-worker: one engine, one engine thread, one link to the frontend.
// RunWorker owns everything; it returns when the process should end. Threads: the caller's
// (signals, leases, drain), the engine's, and the link's two.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "scheduler/clock.h"
#include "scheduler/files/file_layer.h"
#include "server/config/config.h"
#include "server/worker/attempt.h"

namespace kino::worker {

struct WorkerOptions {
  std::string name;     // [a-z0-9.-]
  std::string address;  // of the frontend's link, as gRPC dials it
  std::string link_secret;
  engine::EngineOptions engine;
  std::vector<config::ModelConfig> models;
  // Bytes that a job may take; 0: all there is.
  int64_t max_device_memory = 0;
  int64_t max_host_memory = 0;
  // Left-overs of an earlier process are removed from it at the start.
  std::string spool_folder;
  // Where the hashes of weights are kept between runs of the process; empty: nowhere.
  std::string weights_cache = "";
  // Outlives the call.
  scheduler::FileLayer* files = &scheduler::RealFiles();
  // From the first SIGTERM until a running attempt is interrupted.
  absl::Duration drain_deadline = absl::Seconds(20);
  // Limits of the conditions' files. The token is each attempt's own.
  media::DecodeOptions decode;
  // For a run to notice its token; one that does not is stuck.
  absl::Duration stop_grace = absl::Seconds(5);
  // For the last events to be acknowledged before the process ends.
  absl::Duration farewell = absl::Seconds(3);
};

using EngineFactory =
    std::function<absl::StatusOr<std::unique_ptr<engine::Engine>>(const engine::EngineOptions&)>;

enum ExitCode {
  kExitDrained = 0,
  kExitFailed = 1,  // could not start, or the frontend refused it
  kExitUsage = 2,
  kExitDeviceLost = 70,  // an accelerator error; a new process is needed
};

// Everything is timed by `clock`'s monotonic time, which outlives the call.
// REQUIRES: SIGTERM and SIGINT are blocked in every thread of the process. Returns one of ExitCode;
// after a lost device, or when a run ignores its interruption, it ends the process itself, without
// destructors.
int RunWorker(const WorkerOptions& options, const scheduler::Clock& clock,
              const EngineFactory& make_engine, const MediaDecoder& decode);

}  // namespace kino::worker
