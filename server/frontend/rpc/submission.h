// From a client's request to a job in the queue: known request ids, checks, the model's defaults,
// the seed, inline media kept as assets. Free functions; they block on the store, on files and on
// workers' answers, unless they say otherwise. No gRPC.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "kino/v1/video.pb.h"
#include "scheduler/jobs/job.h"
#include "server/frontend/rpc/context.h"

namespace kino::frontend {

// What each condition of a request names, as the store told it; nothing of inline media.
using ConditionAssets = std::vector<std::optional<absl::StatusOr<scheduler::Asset>>>;

struct EffectiveRequest {
  const CatalogEntry* entry = nullptr;
  // Every default filled in, its plan over the model's.
  engine::Request request;
  // Not checked: one that is not there tells nothing.
  ConditionAssets assets;
};

// The configured model of the request's name, or the only one. INVALID_ARGUMENT: it names none of
// several; NOT_FOUND: there is no such model.
absl::StatusOr<const CatalogEntry*> FindModel(const Context& context,
                                              const v1::GenerateRequest& request);

// Checks all of the request but its assets; `tenant`'s tell what is known of conditions.
// INVALID_ARGUMENT with every violation; NOT_FOUND: no such model; FAILED_PRECONDITION: its files
// are broken.
absl::StatusOr<EffectiveRequest> ResolveJob(const Context& context, const std::string& tenant,
                                            const v1::GenerateRequest& request);

// Called once, from any thread.
using SubmitDone = absl::AnyInvocable<void(absl::StatusOr<scheduler::Job>)>;

// Submits a job and calls `done` with it. `request` lives until then.
//
// A request_id that the tenant has used is looked up before anything else: the same request gives
// the job that it made, whatever has become of its model, assets, workers or limits since; another
// one is ALREADY_EXISTS. Two calls at once make one job, and the media of one.
//
// Otherwise as ResolveJob, and NOT_FOUND: an asset; FAILED_PRECONDITION: it fits on no worker;
// PERMISSION_DENIED: another tenant's name; RESOURCE_EXHAUSTED: the disk or the queue is full, the
// request is too large, or too much media waits to be decoded.
//
// Runs on the calling thread until inline media is to be decoded, then on context.media.
void SubmitJob(const Context& context, const Caller& caller, const v1::GenerateRequest& request,
               SubmitDone done);

// Decodes a received file once and makes it a durable asset. INVALID_ARGUMENT: it is no supported
// image or video; UNAVAILABLE: it could not be decoded just now.
absl::StatusOr<scheduler::Asset> KeepMedia(const Context& context, const std::string& tenant,
                                           AssetWriter& upload, int64_t size_bytes,
                                           const std::string& sha256);

}  // namespace kino::frontend
