#include "server/worker/spool.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace kino::worker {
namespace {

constexpr char kDiskFullPayload[] = "kino/disk_full";

absl::Status SystemError(int error, const std::string& what) {
  absl::Status status = absl::ErrnoToStatus(error, what);
  if (error == ENOSPC || error == EDQUOT || error == EFBIG)
    status.SetPayload(kDiskFullPayload, absl::Cord());
  return status;
}

}  // namespace

bool IsDiskFull(const absl::Status& error) {
  return error.GetPayload(kDiskFullPayload).has_value();
}

absl::StatusOr<std::unique_ptr<Spool>> Spool::Create(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return SystemError(errno, absl::StrCat("cannot create spool '", path, "'"));
  return std::unique_ptr<Spool>(new Spool(path, fd));
}

std::unique_ptr<Spool> Spool::WithoutFile() { return std::unique_ptr<Spool>(new Spool("", -1)); }

Spool::~Spool() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(path_.c_str());
}

absl::Status Spool::Append(v1::AttemptEvent event) {
  Entry entry;
  if (event.has_chunk()) {
    if (fd_ < 0) return absl::FailedPreconditionError("the attempt's spool has no file");
    v1::Chunk* chunk = event.mutable_chunk();
    {
      absl::MutexLock lock(&mutex_);
      if (chunk->offset() != end_offset_) {
        return absl::InternalError(
            absl::StrCat("chunk starts at ", chunk->offset(), ", expected ", end_offset_));
      }
    }
    const std::string data = std::move(*chunk->mutable_data());
    chunk->clear_data();
    entry.offset = chunk->offset();
    entry.size = static_cast<int64_t>(data.size());
    for (size_t done = 0; done < data.size();) {
      const ssize_t wrote = pwrite(fd_, data.data() + done, data.size() - done,
                                   entry.offset + static_cast<int64_t>(done));
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote <= 0)
        return SystemError(wrote < 0 ? errno : EIO, "cannot write the attempt's spool");
      done += static_cast<size_t>(wrote);
    }
  }
  absl::MutexLock lock(&mutex_);
  end_offset_ += entry.size;
  event.set_number(++last_number_);
  if (event.has_done() || event.has_failed()) has_last_ = true;
  entry.event = std::move(event);
  entries_.push_back(std::move(entry));
  return absl::OkStatus();
}

absl::StatusOr<std::optional<v1::AttemptEvent>> Spool::Next(int64_t after) const {
  Entry entry;
  {
    absl::MutexLock lock(&mutex_);
    if (entries_.empty() || last_number_ <= after) return std::optional<v1::AttemptEvent>();
    // Numbers are without gaps.
    const int64_t first = entries_.front().event.number();
    entry = entries_[static_cast<size_t>(std::max<int64_t>(after + 1 - first, 0))];
  }
  if (entry.event.has_chunk()) {
    std::string* data = entry.event.mutable_chunk()->mutable_data();
    data->resize(static_cast<size_t>(entry.size));
    for (size_t done = 0; done < data->size();) {
      const ssize_t got = pread(fd_, data->data() + done, data->size() - done,
                                entry.offset + static_cast<int64_t>(done));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) {
        return SystemError(got < 0 ? errno : EIO, "cannot read the attempt's spool");
      }
      done += static_cast<size_t>(got);
    }
    // Acknowledged meanwhile: its bytes may be gone already.
    absl::MutexLock lock(&mutex_);
    if (entry.event.number() <= acknowledged_) return std::optional<v1::AttemptEvent>();
  }
  return std::optional<v1::AttemptEvent>(std::move(entry.event));
}

void Spool::Acknowledge(int64_t number) {
  int64_t released = 0;
  {
    absl::MutexLock lock(&mutex_);
    while (!entries_.empty() && entries_.front().event.number() <= number) {
      const Entry& entry = entries_.front();
      if (entry.size > 0) released = entry.offset + entry.size;
      acknowledged_ = entry.event.number();
      entries_.pop_front();
    }
  }
  // A file system that cannot punch holes only keeps the space until the attempt ends.
  if (released > 0) {
    (void)fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, released);
  }
}

int64_t Spool::last_number() const {
  absl::MutexLock lock(&mutex_);
  return last_number_;
}

bool Spool::is_drained() const {
  absl::MutexLock lock(&mutex_);
  return has_last_ && entries_.empty();
}

}  // namespace kino::worker
