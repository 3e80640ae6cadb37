#include "scheduler/store/sqlite/file_lock.h"

#include <unistd.h>

#include <cerrno>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "scheduler/status.h"

namespace kino::scheduler {

absl::StatusOr<std::unique_ptr<FileLock>> FileLock::Acquire(FileLayer& files,
                                                            const std::string& path) {
  std::unique_ptr<File> file;
  if (const int error = files.Open(path, OpenMode::kCreate, file); error != 0)
    return absl::ErrnoToStatus(error, absl::StrCat("opening the lock file '", path, "'"));
  if (const int error = file->TryLock(); error == EWOULDBLOCK) {
    char holder[32] = "";
    size_t size = 0;
    const bool is_read = file->Read(holder, sizeof(holder) - 1, 0, size) == 0 && size > 0;
    const std::string pid(absl::StripAsciiWhitespace(is_read ? holder : "unknown"));
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat("'", path, "' is locked by process ", pid,
                                                   ": only one process may open a job store")),
        kReasonStoreLocked);
  } else if (error != 0) {
    return absl::ErrnoToStatus(error, absl::StrCat("locking '", path, "'"));
  }
  // The process id is for the message above only; a full disk must not keep the store from opening
  // for reading out.
  if (file->Truncate(0) == 0) (void)file->Write(absl::StrCat(getpid(), "\n"), 0);
  return std::unique_ptr<FileLock>(new FileLock(std::move(file)));
}

}  // namespace kino::scheduler
