#include "server/cli/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "absl/strings/str_cat.h"

namespace kino::cli {

absl::StatusOr<std::unique_ptr<OutputFile>> OutputFile::Create(const std::string& name,
                                                               std::function<bool()> give_up) {
  if (name.empty()) return std::unique_ptr<OutputFile>(new OutputFile(name, {}, -1));
  absl::StatusOr<command_line::OutputTarget> target = command_line::OpenOutputTarget(name);
  if (!target.ok()) return target.status();
  int fd = target->fd;
  if (!target->file.empty()) {
    const absl::StatusOr<int> part = command_line::OpenPartFile(target->file + ".part");
    if (!part.ok()) return part.status();
    fd = *part;
  }
  std::unique_ptr<OutputFile> file(new OutputFile(name, *std::move(target), fd));
  file->give_up_ = std::move(give_up);
  return file;
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) close(fd_);
  if (!target_.file.empty() && !finished_) unlink(part_.c_str());
}

absl::Status OutputFile::BeginAttempt(int attempt) {
  attempt_ = attempt;
  if (is_stream()) {
    // An attempt that ended before it had given all of that leaves the stream as it was.
    if (offset_ > taken_bytes_) {
      taken_bytes_ = offset_;
      taken_sha256_ = sent_->Hex();
    }
    sent_ = std::make_unique<digest::Sha256>();
  } else if (fd_ >= 0 && ftruncate(fd_, 0) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot truncate '", part_, "'"));
  }
  offset_ = 0;
  return absl::OkStatus();
}

absl::Status OutputFile::WriteStream(const std::string& data) {
  const size_t again = static_cast<size_t>(
      std::clamp(taken_bytes_ - offset_, int64_t{0}, static_cast<int64_t>(data.size())));
  sent_->Update(data.data(), again);
  if (again > 0 && offset_ + static_cast<int64_t>(again) == taken_bytes_ &&
      sent_->Hex() != taken_sha256_) {
    return absl::DataLossError(absl::StrCat(
        "the job began anew with other bytes, but '", name_, "' has taken ", taken_bytes_,
        " bytes already, which cannot be taken back; write to a file, or fetch the video again"));
  }
  sent_->Update(data.data() + again, data.size() - again);
  return command_line::WriteAll(fd_, data.data() + again, data.size() - again, name_, give_up_);
}

absl::Status OutputFile::Write(int attempt, int64_t offset, const std::string& data) {
  if (attempt != attempt_) {
    if (absl::Status begun = BeginAttempt(attempt); !begun.ok()) return begun;
  }
  if (offset != offset_) {
    return absl::DataLossError(absl::StrCat("a chunk of attempt ", attempt, " starts at ", offset,
                                            ", expected ", offset_));
  }
  if (is_stream()) {
    if (absl::Status written = WriteStream(data); !written.ok()) return written;
  } else {
    for (size_t done = 0; fd_ >= 0 && done < data.size();) {
      const ssize_t wrote =
          pwrite(fd_, data.data() + done, data.size() - done, offset + static_cast<int64_t>(done));
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote <= 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write '", part_, "'"));
      done += static_cast<size_t>(wrote);
    }
  }
  offset_ += static_cast<int64_t>(data.size());
  return absl::OkStatus();
}

absl::Status OutputFile::CheckWhole(int64_t size_bytes, const std::string& sha256,
                                    const digest::FileDigest& got) const {
  if (got.size_bytes == size_bytes && got.sha256 == sha256) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("'", target_.file.empty() ? name_ : part_, "' has ",
                                          got.size_bytes, " bytes with SHA-256 ", got.sha256,
                                          ", expected ", size_bytes, " with ", sha256));
}

absl::Status OutputFile::Finish(int64_t size_bytes, const std::string& sha256) {
  if (name_.empty()) return absl::OkStatus();
  const bool was_stream = is_stream();
  if (fd_ >= 0 && close(fd_) != 0) {
    fd_ = -1;
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write '", name_, "'"));
  }
  fd_ = -1;
  if (was_stream) {
    // Of an earlier attempt it may have taken more than this one has.
    return CheckWhole(size_bytes, sha256, {std::max(offset_, taken_bytes_), sent_->Hex()});
  }
  auto digest = digest::DigestFile(part_);
  if (!digest.ok()) return digest.status();
  if (absl::Status whole = CheckWhole(size_bytes, sha256, *digest); !whole.ok()) return whole;
  if (std::rename(part_.c_str(), target_.file.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write '", target_.file, "'"));
  }
  finished_ = true;
  return absl::OkStatus();
}

}  // namespace kino::cli
