#include "server/frontend/rpc/upload.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/frontend/rpc/errors.h"
#include "server/frontend/rpc/grpc_call.h"
#include "server/frontend/rpc/job_view.h"

namespace kino::frontend {

Upload* Upload::Start(const Context& context, const absl::StatusOr<Caller>& caller,
                      v1::Asset* response) {
  const std::shared_ptr<Upload> upload(new Upload(context, response));
  upload->self_ = upload;
  if (!caller.ok()) {
    upload->Finish(ToGrpc(caller.status()));
    return upload.get();
  }
  upload->caller_ = *caller;
  // Bounds what is posted for uploads, too: each has one step at a time.
  upload->place_ = context.uploads.TryTake(caller->line);
  if (upload->place_ == nullptr) {
    upload->Finish(ToGrpc(ServerBusy("uploads are under way")));
  } else {
    context.idle_uploads.Add(upload);
    upload->ReadNext();
  }
  return upload.get();
}

void Upload::ReadNext() {
  // Under the lock: once the silence is looked at, and Finish called, gRPC may end the stream.
  absl::MutexLock lock(&mutex_);
  silence_.Begin(context_.idle_uploads.Now());
  StartRead(&message_);
}

void Upload::EndIfSilent(absl::Duration limit, absl::Duration now) {
  absl::MutexLock lock(&mutex_);
  if (!silence_.IsLongerThan(limit, now)) return;
  silence_.End();
  is_ended_ = true;
  Finish(ToGrpc(WithErrorInfo(
      absl::DeadlineExceededError(absl::StrCat(
          "nothing came for ", absl::FormatDuration(limit), " (limits.upload_idle_timeout) while ",
          receiver_.Awaited(), " was expected; upload the file again")),
      "UPLOAD_IDLE")));
}

void Upload::OnReadDone(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
    silence_.End();
    // The call has its answer; this read only makes way for OnDone.
    if (is_ended_) return;
  }
  context_.watch.Post([self = shared_from_this(), ok] {
    if (ok) {
      self->Take();
    } else {
      self->Complete();
    }
  });
}

void Upload::OnDone() {
  place_.reset();
  std::shared_ptr<Upload> self = std::move(self_);
}

void Upload::Take() {
  const absl::Status taken = receiver_.Take(caller_.tenant, message_);
  if (!taken.ok()) return Finish(ToGrpc(taken));
  ReadNext();
}

void Upload::Complete() {
  const absl::Status complete = receiver_.CheckComplete();
  if (!complete.ok()) return Finish(ToGrpc(complete));
  Executor::Task task = [self = shared_from_this()] { self->Keep(); };
  if (!context_.media.TryPost(caller_.line, task)) {
    Finish(ToGrpc(ServerBusy("files wait to be decoded")));
  }
}

void Upload::Keep() {
  const absl::StatusOr<scheduler::Asset> asset = receiver_.Keep(caller_.tenant);
  if (!asset.ok()) return Finish(ToGrpc(asset.status()));
  *response_ = ToProto(*asset);
  Finish(grpc::Status::OK);
}

}  // namespace kino::frontend
