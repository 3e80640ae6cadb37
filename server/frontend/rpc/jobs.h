// What callers do with jobs that are there: get, list, cancel, delete. Free functions over Context;
// thread-safe. No gRPC. They block on the store unless they say otherwise.
#pragma once

#include <functional>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kino/v1/video.pb.h"
#include "server/frontend/rpc/context.h"

namespace kino::frontend {

// NOT_FOUND.
absl::StatusOr<v1::Job> GetJob(const Context& context, const std::string& tenant,
                               const std::string& id);

// INVALID_ARGUMENT: page size, page token or states. A page of large jobs holds fewer than asked
// for; no more than a few MiB are read for one.
absl::StatusOr<v1::ListJobsResponse> ListJobs(const Context& context, const std::string& tenant,
                                              const v1::ListJobsRequest& request);

// NOT_FOUND.
absl::StatusOr<v1::Job> CancelJob(const Context& context, const std::string& tenant,
                                  const std::string& id);

// NOT_FOUND; FAILED_PRECONDITION: it cannot run again.
absl::StatusOr<v1::Job> RequeueJob(const Context& context, const std::string& tenant,
                                   const std::string& id);

// Cancels what matches, some jobs at a time: between two batches other work of context.slow has its
// turn, and within one others' writes. Calls `done` once, from any thread; `is_abandoned` is asked
// before each batch whether anybody still waits for it. INVALID_ARGUMENT: no condition, or a state
// that cannot be cancelled. Another error: some are cancelled, and the call is to be made again.
// REQUIRES: runs on context.slow; `request` lives until `done`.
using CancelJobsDone = absl::AnyInvocable<void(absl::StatusOr<v1::CancelJobsResponse>)>;
void CancelJobs(const Context& context, const std::string& tenant,
                const v1::CancelJobsRequest& request, std::function<bool()> is_abandoned,
                CancelJobsDone done);

// NOT_FOUND; FAILED_PRECONDITION: it has not ended.
absl::Status DeleteJob(const Context& context, const std::string& tenant, const std::string& id);

}  // namespace kino::frontend
