// DownloadVideo's stream: what a DownloadCursor gives goes out with one write in flight. Same
// threads and lifetime as a Watcher.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <memory>

#include "absl/status/statusor.h"
#include "kino/v1/video.pb.h"
#include "server/frontend/rpc/context.h"
#include "server/frontend/rpc/download_cursor.h"

namespace kino::frontend {

class Download final : public grpc::ServerWriteReactor<v1::DownloadVideoResponse>,
                       public std::enable_shared_from_this<Download> {
 public:
  static Download* Start(const Context& context, const absl::StatusOr<Caller>& caller,
                         const v1::DownloadVideoRequest& request);

 private:
  Download(const Context& context, const std::string& tenant,
           const v1::DownloadVideoRequest& request);
  void OnWriteDone(bool ok) override;
  void OnCancel() override { is_cancelled_ = true; }
  void OnDone() override;
  void Step();
  absl::StatusOr<bool> Next();

  const Context& context_;
  std::shared_ptr<Download> self_;  // until OnDone
  std::shared_ptr<void> place_;
  std::atomic<bool> is_cancelled_{false};

  // The step's own.
  DownloadCursor cursor_;
  bool is_open_ = false;
  v1::DownloadVideoResponse response_;
};

}  // namespace kino::frontend
