// DownloadVideo's stream: the artifact's bytes from an offset, read at the client's pace with one
// write in flight. Same threads and lifetime as a Watcher.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "kino/v1/video.pb.h"
#include "server/frontend/rpc/context.h"

namespace kino::frontend {

class Download final : public grpc::ServerWriteReactor<v1::DownloadVideoResponse>,
                       public std::enable_shared_from_this<Download> {
 public:
  static Download* Start(const Context& context, absl::StatusOr<std::string> tenant,
                         v1::DownloadVideoRequest request);

 private:
  Download(const Context& context, v1::DownloadVideoRequest request)
      : context_(context), request_(std::move(request)) {}
  void OnWriteDone(bool ok) override;
  void OnCancel() override { is_cancelled_ = true; }
  void OnDone() override;
  void PostStep();
  void Step();
  absl::Status Open();

  const Context& context_;
  const v1::DownloadVideoRequest request_;
  std::string tenant_;
  std::shared_ptr<Download> self_;  // until OnDone
  std::shared_ptr<const VideoFile> file_;
  int64_t offset_ = 0;
  int64_t end_ = 0;
  v1::DownloadVideoResponse response_;
  std::atomic<bool> is_cancelled_{false};
};

}  // namespace kino::frontend
