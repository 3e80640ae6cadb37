#include "server/cli/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "server/digest/sha256.h"

namespace kino::cli {

absl::StatusOr<std::unique_ptr<OutputFile>> OutputFile::Create(const std::string& path) {
  if (path.empty()) return std::unique_ptr<OutputFile>(new OutputFile(path, -1));
  const std::string part = path + ".part";
  const int fd = open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write '", part, "'"));
  return std::unique_ptr<OutputFile>(new OutputFile(path, fd));
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) close(fd_);
  if (!path_.empty() && !finished_) unlink(part_.c_str());
}

absl::Status OutputFile::Write(int attempt, int64_t offset, const std::string& data) {
  if (attempt != attempt_) {
    attempt_ = attempt;
    offset_ = 0;
    if (fd_ >= 0 && ftruncate(fd_, 0) != 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot truncate '", part_, "'"));
    }
  }
  if (offset != offset_) {
    return absl::DataLossError(absl::StrCat("a chunk of attempt ", attempt, " starts at ", offset,
                                            ", expected ", offset_));
  }
  for (size_t done = 0; fd_ >= 0 && done < data.size();) {
    const ssize_t wrote =
        pwrite(fd_, data.data() + done, data.size() - done, offset + static_cast<int64_t>(done));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write '", part_, "'"));
    done += static_cast<size_t>(wrote);
  }
  offset_ += static_cast<int64_t>(data.size());
  return absl::OkStatus();
}

absl::Status OutputFile::Finish(int64_t size_bytes, const std::string& sha256) {
  if (path_.empty()) return absl::OkStatus();
  if (fd_ >= 0 && close(fd_) != 0) {
    fd_ = -1;
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write '", part_, "'"));
  }
  fd_ = -1;
  auto digest = digest::DigestFile(part_);
  if (!digest.ok()) return digest.status();
  if (digest->size_bytes != size_bytes || digest->sha256 != sha256) {
    return absl::DataLossError(absl::StrCat("'", part_, "' has ", digest->size_bytes,
                                            " bytes with SHA-256 ", digest->sha256, ", expected ",
                                            size_bytes, " with ", sha256));
  }
  if (std::rename(part_.c_str(), path_.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write '", path_, "'"));
  }
  finished_ = true;
  return absl::OkStatus();
}

}  // namespace kino::cli
