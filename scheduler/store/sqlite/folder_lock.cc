#include "scheduler/store/sqlite/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "scheduler/status.h"

namespace kino::scheduler {

absl::StatusOr<std::unique_ptr<FolderLock>> FolderLock::Acquire(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("opening the lock file '", path, "'"));
  std::unique_ptr<FolderLock> lock(new FolderLock(fd));
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) {
      return absl::ErrnoToStatus(errno, absl::StrCat("locking '", path, "'"));
    }
    char holder[32] = "";
    const ssize_t size = pread(fd, holder, sizeof(holder) - 1, 0);
    const std::string pid(absl::StripAsciiWhitespace(size > 0 ? holder : "unknown"));
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat("'", path, "' is locked by process ", pid,
                                                   ": only one process may open a job store")),
        kReasonStoreLocked);
  }
  // The process id is for the message above only; a full disk must not keep the store from opening
  // for reading out.
  const std::string pid = absl::StrCat(getpid(), "\n");
  if (ftruncate(fd, 0) != 0 || pwrite(fd, pid.data(), pid.size(), 0) < 0) errno = 0;
  return lock;
}

FolderLock::~FolderLock() { close(fd_); }

}  // namespace kino::scheduler
