// UploadAsset's stream: each message is taken by an UploadReceiver before the next is read, and
// what has been received is decoded on the media executor, which other uploads' bytes do not wait
// for. Lives until OnDone and until the last posted step has run.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

#include "absl/status/statusor.h"
#include "kino/v1/video.pb.h"
#include "server/frontend/rpc/context.h"
#include "server/frontend/rpc/upload_receiver.h"

namespace kino::frontend {

class Upload final : public grpc::ServerReadReactor<v1::UploadAssetRequest>,
                     public std::enable_shared_from_this<Upload> {
 public:
  static Upload* Start(const Context& context, const absl::StatusOr<Caller>& caller,
                       v1::Asset* response);

 private:
  Upload(const Context& context, v1::Asset* response)
      : context_(context), response_(response), receiver_(context) {}
  void OnReadDone(bool ok) override;
  void OnDone() override;
  void Take();
  void Complete();
  void Keep();

  const Context& context_;
  v1::Asset* const response_;
  Caller caller_;
  std::shared_ptr<Upload> self_;  // until OnDone
  std::shared_ptr<void> place_;
  UploadReceiver receiver_;
  v1::UploadAssetRequest message_;
};

}  // namespace kino::frontend
