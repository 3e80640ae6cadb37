// UploadAsset's stream: each message is taken by an UploadReceiver before the next is read, and
// what has been received is decoded on the media executor, which other uploads' bytes do not wait
// for. A client that says nothing for limits.upload_idle_timeout is ended. Lives until OnDone and
// until the last posted step has run.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "kino/v1/video.pb.h"
#include "server/frontend/rpc/context.h"
#include "server/frontend/rpc/idle_uploads.h"
#include "server/frontend/rpc/upload_receiver.h"

namespace kino::frontend {

class Upload final : public grpc::ServerReadReactor<v1::UploadAssetRequest>,
                     public SilentParty,
                     public std::enable_shared_from_this<Upload> {
 public:
  static Upload* Start(const Context& context, const absl::StatusOr<Caller>& caller,
                       v1::Asset* response);

  void EndIfSilent(absl::Duration limit, absl::Duration now) override;

 private:
  Upload(const Context& context, v1::Asset* response)
      : context_(context), response_(response), receiver_(context) {}
  void OnReadDone(bool ok) override;
  void OnDone() override;
  void ReadNext();
  void Take();
  void Complete();
  void Keep();

  const Context& context_;
  v1::Asset* const response_;
  Caller caller_;
  std::shared_ptr<Upload> self_;  // until OnDone
  std::shared_ptr<void> place_;
  // Of the step that is posted, or, while a message is awaited, of whoever has the mutex.
  UploadReceiver receiver_;
  v1::UploadAssetRequest message_;

  absl::Mutex mutex_;
  Silence silence_ ABSL_GUARDED_BY(mutex_);
  bool is_ended_ ABSL_GUARDED_BY(mutex_) = false;  // for its silence
};

}  // namespace kino::frontend
