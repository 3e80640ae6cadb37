// From a client's request to a record for the queue: checks, the model's defaults, the seed, inline
// media kept as assets. Free functions; they block on the store, on files and on the decoding of
// media.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kino/v1/video.pb.h"
#include "scheduler/jobs/job.h"
#include "server/frontend/rpc/context.h"

namespace kino::frontend {

struct EffectiveRequest {
  const CatalogEntry* entry = nullptr;
  // Every default filled in, its plan over the model's.
  engine::Request request;
};

// Checks all of the request but its assets. INVALID_ARGUMENT with every violation; NOT_FOUND: no
// such model; FAILED_PRECONDITION: its files are broken.
absl::StatusOr<EffectiveRequest> ResolveJob(const Context& context,
                                            const v1::GenerateRequest& request);

// As ResolveJob, and NOT_FOUND: an asset; FAILED_PRECONDITION: it fits on no worker;
// PERMISSION_DENIED: another tenant's name; RESOURCE_EXHAUSTED: the disk is full.
absl::StatusOr<scheduler::NewJob> PrepareJob(const Context& context, const std::string& tenant,
                                             const v1::GenerateRequest& request);

// Decodes a received file once and makes it a durable asset.
absl::StatusOr<scheduler::Asset> KeepMedia(const Context& context, const std::string& tenant,
                                           AssetWriter& upload, int64_t size_bytes,
                                           const std::string& sha256);

}  // namespace kino::frontend
