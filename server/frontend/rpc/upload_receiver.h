// Receives one asset: a header, then bytes that go to a temporary file as they come. Size and
// SHA-256 are held against the declared ones before the file is looked into. Knows no gRPC. Used by
// one thread at a time; blocks on the file.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kino/v1/video.pb.h"
#include "scheduler/jobs/job.h"
#include "server/digest/sha256.h"
#include "server/frontend/artifacts/file_store.h"
#include "server/frontend/rpc/context.h"

namespace kino::frontend {

class UploadReceiver {
 public:
  // `context` outlives it.
  explicit UploadReceiver(const Context& context) : context_(context) {}

  // INVALID_ARGUMENT; RESOURCE_EXHAUSTED: larger than the server's limit (UPLOAD_TOO_LARGE), or
  // there is no room on the disk for it (DiskBudget::Reserve).
  absl::Status Take(const std::string& tenant, const v1::UploadAssetRequest& message);

  // What the client is to send next, in words.
  std::string Awaited() const;

  // Whether all has come that was declared. INVALID_ARGUMENT.
  absl::Status CheckComplete() const;

  // Decodes the file once and names it in the store (KeepMedia). Takes seconds: to be called on
  // context.media. REQUIRES: CheckComplete is OK.
  absl::StatusOr<scheduler::Asset> Keep(const std::string& tenant);

 private:
  absl::Status TakeHeader(const std::string& tenant, const v1::UploadAssetRequest::Header& header);
  absl::Status TakeData(const std::string& data);

  const Context& context_;
  std::optional<v1::UploadAssetRequest::Header> header_;
  DiskBudget::Reservation room_;  // for what the header declares
  std::unique_ptr<AssetWriter> file_;
  int64_t received_ = 0;
  digest::Sha256 sha_;
};

}  // namespace kino::frontend
