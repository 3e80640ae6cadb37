// A finished video's bytes from an offset, piece by piece. Knows no gRPC. Used by one thread at a
// time; Open and Take block on the store and the file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kino/v1/video.pb.h"
#include "scheduler/jobs/job.h"
#include "scheduler/store/job_store.h"
#include "server/frontend/artifacts/file_store.h"
#include "server/frontend/metrics/metrics.h"

namespace kino::frontend {

// All outlive the cursor.
struct DownloadSources {
  scheduler::JobStore& store;
  FileStore& files;
  Metrics& metrics;
};

class DownloadCursor {
 public:
  DownloadCursor(const DownloadSources& sources, std::string tenant,
                 v1::DownloadVideoRequest request)
      : sources_(sources), tenant_(std::move(tenant)), request_(std::move(request)) {}

  // NOT_FOUND; FAILED_PRECONDITION (NO_ARTIFACT, ARTIFACT_PURGED); OUT_OF_RANGE: past the end;
  // INVALID_ARGUMENT. REQUIRES: called once, before the rest.
  absl::Status Open();

  // Fills `piece` with the next bytes. False: there are no more.
  absl::StatusOr<bool> Take(v1::DownloadVideoResponse& piece);

  // The whole video that the bytes are of.
  const scheduler::Artifact& artifact() const { return artifact_; }

 private:
  const DownloadSources sources_;
  const std::string tenant_;
  const v1::DownloadVideoRequest request_;
  scheduler::Artifact artifact_;
  std::shared_ptr<const VideoFile> file_;
  int64_t offset_ = 0;
  int64_t end_ = 0;
};

}  // namespace kino::frontend
