// What RPC handlers work with. References to parts that outlive every RPC; thread-safe because they
// are.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "scheduler/clock.h"
#include "scheduler/random.h"
#include "scheduler/store/job_store.h"
#include "server/config/config.h"
#include "server/frontend/artifacts/file_store.h"
#include "server/frontend/auth/token_table.h"
#include "server/frontend/lifecycle/executor.h"
#include "server/frontend/link/worker_link.h"
#include "server/frontend/metrics/metrics.h"
#include "server/frontend/profiles/profiles.h"
#include "server/frontend/rpc/catalog.h"
#include "server/frontend/watch/hub.h"

namespace kino::frontend {

struct ProbedMedia {
  std::string content_type;  // "image/png", "video/mp4", ...
  int width = 0;
  int height = 0;
  int num_frames = 0;
};
// Decodes the file once, outside this process. INVALID_ARGUMENT: it is no supported image or video.
// Blocks.
using MediaProbe = std::function<absl::StatusOr<ProbedMedia>(const std::string& path)>;

struct Context {
  const config::Config& config;
  scheduler::JobStore& store;
  FileStore& files;
  WatchHub& hub;
  WorkerLink& link;
  Profiles& profiles;
  Metrics& metrics;
  const Catalog& catalog;
  const TokenTable& tokens;
  const scheduler::Clock& clock;
  scheduler::RandomSource& random;
  MediaProbe probe;
  Executor& rpc;    // short work that blocks on the store
  Executor& watch;  // watchers' reads
  Executor& media;  // decoding of uploads, which takes seconds
};

// The caller's tenant. UNAUTHENTICATED. Does not block.
absl::StatusOr<std::string> TenantOf(const Context& context,
                                     const grpc::CallbackServerContext& call);

}  // namespace kino::frontend
