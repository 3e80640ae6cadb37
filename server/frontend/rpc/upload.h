// UploadAsset's stream: bytes go to a temporary file as they arrive, size and SHA-256 are checked
// against the declared, the file is decoded once in another process, made durable, and only then
// named in the store. Each message is dealt with on the media executor before the next is read.
// Lives until OnDone and until the last posted step has run.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "kino/v1/video.pb.h"
#include "server/digest/sha256.h"
#include "server/frontend/rpc/context.h"

namespace kino::frontend {

class Upload final : public grpc::ServerReadReactor<v1::UploadAssetRequest>,
                     public std::enable_shared_from_this<Upload> {
 public:
  static Upload* Start(const Context& context, absl::StatusOr<std::string> tenant,
                       v1::Asset* response);

 private:
  Upload(const Context& context, v1::Asset* response) : context_(context), response_(response) {}
  void OnReadDone(bool ok) override;
  void OnDone() override;
  void Take();
  absl::Status TakeHeader(const v1::UploadAssetRequest::Header& header);
  absl::Status TakeData(const std::string& data);
  absl::Status Complete();

  const Context& context_;
  v1::Asset* const response_;
  std::string tenant_;
  std::shared_ptr<Upload> self_;  // until OnDone
  v1::UploadAssetRequest message_;
  std::optional<v1::UploadAssetRequest::Header> header_;
  std::unique_ptr<AssetWriter> file_;
  int64_t received_ = 0;
  digest::Sha256 sha_;
};

}  // namespace kino::frontend
