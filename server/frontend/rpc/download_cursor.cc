#include "server/frontend/rpc/download_cursor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/convert/status.h"
#include "server/frontend/rpc/errors.h"

namespace kino::frontend {
namespace {

constexpr int64_t kPieceBytes = int64_t{255} * 1024;

}  // namespace

absl::Status DownloadCursor::Open() {
  if (request_.offset() < 0 || request_.limit() < 0) {
    return convert::InvalidRequest({{"offset, limit", "expected no negative number"}});
  }
  const absl::StatusOr<scheduler::Job> job = sources_.store.Get(tenant_, request_.id());
  if (!job.ok()) return job.status();
  if (!job->artifact.has_value()) {
    return WithErrorInfo(
        absl::FailedPreconditionError(
            job->artifact_purged ? std::string("the job's video has aged out and was removed")
                                 : absl::StrCat("the job has no video: it is ",
                                                scheduler::JobStateName(job->state))),
        job->artifact_purged ? "ARTIFACT_PURGED" : "NO_ARTIFACT");
  }
  artifact_ = *job->artifact;
  const int64_t size = artifact_.size_bytes;
  if (request_.offset() > size) {
    return absl::OutOfRangeError(
        absl::StrCat("offset: the video has ", size, " bytes, got ", request_.offset()));
  }
  absl::StatusOr<std::shared_ptr<const VideoFile>> file =
      sources_.files.OpenVideo(artifact_.file_name);
  if (!file.ok()) return file.status();
  file_ = *std::move(file);
  offset_ = request_.offset();
  end_ = request_.limit() > 0 ? std::min(size, offset_ + std::min(request_.limit(), size)) : size;
  return absl::OkStatus();
}

absl::StatusOr<bool> DownloadCursor::Take(v1::DownloadVideoResponse& piece) {
  if (offset_ >= end_) return false;
  const int64_t size = std::min(end_ - offset_, kPieceBytes);
  piece.set_offset(offset_);
  const absl::Status read = file_->Read(offset_, static_cast<size_t>(size), *piece.mutable_data());
  if (!read.ok()) return read;
  offset_ += size;
  sources_.metrics.BytesStreamed(size);
  return true;
}

}  // namespace kino::frontend
