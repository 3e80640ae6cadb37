#include "server/frontend/rpc/download.h"

#include <string>
#include <utility>

#include "server/frontend/rpc/errors.h"
#include "server/frontend/rpc/grpc_call.h"
#include "server/frontend/rpc/request_check.h"

namespace kino::frontend {

Download::Download(const Context& context, const std::string& tenant,
                   const v1::DownloadVideoRequest& request)
    : context_(context),
      cursor_({.store = context.store, .files = context.files, .metrics = context.metrics}, tenant,
              request) {}

Download* Download::Start(const Context& context, const absl::StatusOr<Caller>& caller,
                          const v1::DownloadVideoRequest& request) {
  const std::shared_ptr<Download> download(
      new Download(context, caller.ok() ? caller->tenant : "", request));
  download->self_ = download;
  if (!caller.ok()) {
    download->Finish(ToGrpc(caller.status()));
    return download.get();
  }
  download->place_ = context.streams.TryTake(caller->line);
  Executor::Task task = [download, request] {
    const absl::Status known = CheckEnvelope(request);
    if (!known.ok()) return download->Finish(ToGrpc(known));
    download->Step();
  };
  if (download->place_ == nullptr) {
    download->Finish(ToGrpc(ServerBusy("streams are open")));
  } else if (!context.watch.TryPost(caller->line, task)) {
    download->Finish(ToGrpc(ServerBusy("calls wait")));
  }
  return download.get();
}

void Download::OnWriteDone(bool ok) {
  if (!ok) is_cancelled_ = true;
  context_.watch.Post([self = shared_from_this()] { self->Step(); });
}

void Download::OnDone() {
  place_.reset();
  std::shared_ptr<Download> self = std::move(self_);
}

absl::StatusOr<bool> Download::Next() {
  if (is_cancelled_) return absl::CancelledError("the download was cancelled");
  if (!is_open_) {
    const absl::Status opened = cursor_.Open();
    if (!opened.ok()) return opened;
    is_open_ = true;
  }
  return cursor_.Take(response_);
}

void Download::Step() {
  const absl::StatusOr<bool> has_more = Next();
  if (!has_more.ok()) return Finish(ToGrpc(has_more.status()));
  if (!*has_more) return Finish(grpc::Status::OK);
  StartWrite(&response_);
}

}  // namespace kino::frontend
