// What calls work with, whatever protocol they came by. References to parts that outlive every
// call; thread-safe because they are.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "scheduler/clock.h"
#include "scheduler/random.h"
#include "scheduler/store/job_store.h"
#include "server/config/config.h"
#include "server/frontend/artifacts/disk_budget.h"
#include "server/frontend/artifacts/file_store.h"
#include "server/frontend/auth/admission.h"
#include "server/frontend/lifecycle/executor.h"
#include "server/frontend/link/worker_link.h"
#include "server/frontend/metrics/metrics.h"
#include "server/frontend/profiles/profiles.h"
#include "server/frontend/rpc/catalog.h"
#include "server/frontend/rpc/idle_uploads.h"
#include "server/frontend/watch/hub.h"
#include "server/frontend/watch/queue_view.h"

namespace kino::frontend {

struct ProbedMedia {
  std::string content_type;  // "image/png", "video/mp4", ...
  int width = 0;
  int height = 0;
  int num_frames = 0;
  double fps = 0;  // of a video that says it; else 0
};
// Decodes the file once, outside this process. INVALID_ARGUMENT: it is no supported image or video,
// or more than the limits allow. UNAVAILABLE: it could not be decoded just now. Blocks.
using MediaProbe = std::function<absl::StatusOr<ProbedMedia>(const std::string& path)>;

struct Context {
  const config::Config& config;
  scheduler::JobStore& store;
  FileStore& files;
  DiskBudget& budget;
  WatchHub& hub;
  QueueView& queue;
  WorkerLink& link;
  Profiles& profiles;
  Metrics& metrics;
  const Catalog& catalog;
  Admission& admission;
  const scheduler::Clock& clock;
  scheduler::RandomSource& random;
  MediaProbe probe;

  // Where calls do their work. What takes long has threads of its own, so that what is short never
  // waits for it.
  Executor& rpc;    // single jobs: a few reads or one write of the store
  Executor& slow;   // many jobs at once, and waits for workers' word about what runs need
  Executor& watch;  // streams' steps: reads for watchers and downloads, bytes of uploads
  Executor& media;  // decoding of uploads, which takes seconds

  Places& streams;   // watches and downloads
  Places& uploads;   // each holds a file
  Places& commands;  // orders to workers, such as loading a model

  IdleUploads& idle_uploads;
};

}  // namespace kino::frontend
