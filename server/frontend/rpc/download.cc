#include "server/frontend/rpc/download.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/convert/status.h"
#include "server/frontend/rpc/errors.h"

namespace kino::frontend {
namespace {

constexpr int64_t kChunkBytes = int64_t{255} * 1024;

}  // namespace

Download* Download::Start(const Context& context, absl::StatusOr<std::string> tenant,
                          v1::DownloadVideoRequest request) {
  std::shared_ptr<Download> owned(new Download(context, std::move(request)));
  Download* download = owned.get();
  download->self_ = std::move(owned);
  if (!tenant.ok()) {
    download->Finish(ToGrpc(tenant.status()));
    return download;
  }
  download->tenant_ = *std::move(tenant);
  download->PostStep();
  return download;
}

void Download::PostStep() {
  context_.watch.Post([self = shared_from_this()] { self->Step(); });
}

void Download::OnWriteDone(bool ok) {
  if (!ok) is_cancelled_ = true;
  PostStep();
}

void Download::OnDone() { std::shared_ptr<Download> self = std::move(self_); }

absl::Status Download::Open() {
  if (request_.offset() < 0 || request_.limit() < 0) {
    return convert::InvalidRequest({{"offset, limit", "expected no negative number"}});
  }
  const absl::StatusOr<scheduler::Job> job = context_.store.Get(tenant_, request_.id());
  if (!job.ok()) return job.status();
  if (!job->artifact.has_value()) {
    return WithErrorInfo(
        absl::FailedPreconditionError(
            job->artifact_purged ? std::string("the job's video has aged out and was removed")
                                 : absl::StrCat("the job has no video: it is ",
                                                scheduler::JobStateName(job->state))),
        job->artifact_purged ? "ARTIFACT_PURGED" : "NO_ARTIFACT");
  }
  const int64_t size = job->artifact->size_bytes;
  if (request_.offset() > size) {
    return absl::OutOfRangeError(
        absl::StrCat("offset: the video has ", size, " bytes, got ", request_.offset()));
  }
  absl::StatusOr<std::shared_ptr<const VideoFile>> file =
      context_.files.OpenVideo(job->artifact->file_name);
  if (!file.ok()) return file.status();
  file_ = *std::move(file);
  offset_ = request_.offset();
  end_ = request_.limit() > 0 ? std::min(size, offset_ + std::min(request_.limit(), size)) : size;
  return absl::OkStatus();
}

void Download::Step() {
  if (is_cancelled_) return Finish(ToGrpc(absl::CancelledError("the download was cancelled")));
  if (file_ == nullptr) {
    const absl::Status opened = Open();
    if (!opened.ok()) return Finish(ToGrpc(opened));
  }
  if (offset_ >= end_) return Finish(grpc::Status::OK);
  const int64_t size = std::min(end_ - offset_, kChunkBytes);
  response_.set_offset(offset_);
  const absl::Status read =
      file_->Read(offset_, static_cast<size_t>(size), *response_.mutable_data());
  if (!read.ok()) return Finish(ToGrpc(read));
  offset_ += size;
  context_.metrics.BytesStreamed(size);
  StartWrite(&response_);
}

}  // namespace kino::frontend
