#include "server/command_line/output_target.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <filesystem>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace kino::command_line {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxLinks = 40;  // as the kernel has it
constexpr int kTickMs = 50;

absl::Status CannotWrite(const std::string& name, int error) {
  return absl::ErrnoToStatus(error, absl::StrCat("cannot write '", name, "'"));
}

absl::Status Refused(const std::string& name, const char* kind) {
  return absl::InvalidArgumentError(absl::StrCat("cannot write '", name, "': it is ", kind));
}

// A name as its links lead to it.
struct Resolved {
  std::string path;
  // An open descriptor of this process, where it is one ("/proc/self/fd/1").
  std::optional<int> own_fd;
  mode_t mode = 0;  // 0: absent
};

// Whether the folder holds a process's open descriptors. A link in there leads to what is open,
// whatever name that has or had.
bool IsDescriptorFolder(const std::string& folder, bool* is_own) {
  std::error_code error;
  const std::string real = fs::canonical(folder, error).string();
  if (error || !absl::StartsWith(real, "/proc/") || !absl::EndsWith(real, "/fd")) return false;
  *is_own = absl::StartsWith(real, absl::StrCat("/proc/", getpid(), "/"));
  return true;
}

absl::StatusOr<Resolved> Resolve(const std::string& name) {
  Resolved out{.path = name, .own_fd = std::nullopt, .mode = 0};
  if (name == "-") {
    out.own_fd = STDOUT_FILENO;
    out.mode = S_IFIFO;
    return out;
  }
  for (int hops = 0;; ++hops) {
    const fs::path parent = fs::path(out.path).parent_path();
    const std::string folder = parent.empty() ? "." : parent.string();
    bool is_own = false;
    struct stat info {};
    if (lstat(out.path.c_str(), &info) != 0) {
      if (errno != ENOENT) return CannotWrite(name, errno);
      if (IsDescriptorFolder(folder, &is_own)) return CannotWrite(name, EBADF);
      if (absl::EndsWith(out.path, "/")) return Refused(name, "a folder");
      return out;
    }
    out.mode = info.st_mode;
    if (!S_ISLNK(info.st_mode)) break;
    if (hops == kMaxLinks) return CannotWrite(name, ELOOP);
    if (IsDescriptorFolder(folder, &is_own)) {
      if (stat(out.path.c_str(), &info) != 0) return CannotWrite(name, errno);
      // Written into, even where a regular file is open there: others may hold it open too.
      out.mode = S_ISDIR(info.st_mode) ? S_IFDIR : S_IFIFO;
      int fd = -1;
      if (is_own && absl::SimpleAtoi(fs::path(out.path).filename().string(), &fd)) out.own_fd = fd;
      break;
    }
    std::error_code error;
    const fs::path target = fs::read_symlink(out.path, error);
    if (error) return CannotWrite(name, error.value());
    out.path = (parent / target).string();
    out.mode = 0;
  }
  if (S_ISDIR(out.mode)) return Refused(name, "a folder");
  if (S_ISSOCK(out.mode)) return Refused(name, "a socket");
  if (S_ISBLK(out.mode)) return Refused(name, "a block device");
  return out;
}

bool IsStream(const Resolved& resolved) { return resolved.mode != 0 && !S_ISREG(resolved.mode); }

}  // namespace

absl::StatusOr<OutputTarget> OpenOutputTarget(const std::string& name) {
  absl::StatusOr<Resolved> resolved = Resolve(name);
  if (!resolved.ok()) return resolved.status();
  OutputTarget target;
  if (!IsStream(*resolved)) {
    target.file = std::move(resolved->path);
    return target;
  }
  if (resolved->own_fd) {
    const int flags = fcntl(*resolved->own_fd, F_GETFL);
    if (flags < 0) return CannotWrite(name, errno);
    if ((flags & O_ACCMODE) == O_RDONLY) return CannotWrite(name, EBADF);
    target.fd = fcntl(*resolved->own_fd, F_DUPFD_CLOEXEC, 3);
    target.is_stdout = *resolved->own_fd == STDOUT_FILENO;
  } else {
    // A signal that has a meaning may end the wait.
    target.fd = open(resolved->path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY);
  }
  if (target.fd < 0) return CannotWrite(name, errno);
  return target;
}

absl::StatusOr<bool> IsOutputStream(const std::string& name) {
  const absl::StatusOr<Resolved> resolved = Resolve(name);
  if (!resolved.ok()) return resolved.status();
  return IsStream(*resolved);
}

absl::StatusOr<int> OpenPartFile(const std::string& part) {
  // Neither through a link nor into a pipe, for which opening could wait for ever.
  const int fd = open(part.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
  if (fd < 0) return CannotWrite(part, errno);
  struct stat info {};
  absl::Status status;
  const bool is_known = fstat(fd, &info) == 0;
  if (is_known && !S_ISREG(info.st_mode)) {
    status = Refused(part, "no regular file");
  } else if (!is_known || ftruncate(fd, 0) != 0) {
    status = CannotWrite(part, errno);
  }
  if (status.ok()) return fd;
  close(fd);
  return status;
}

absl::Status WriteAll(int fd, const void* data, size_t size, const std::string& name,
                      const std::function<bool()>& give_up) {
  const char* from = static_cast<const char*>(data);
  while (size > 0) {
    pollfd room{fd, POLLOUT, 0};
    while (give_up && poll(&room, 1, kTickMs) == 0) {
      if (give_up()) return absl::CancelledError(absl::StrCat("'", name, "' takes no more bytes"));
    }
    // So many a pipe with room takes at once.
    const ssize_t wrote = write(fd, from, give_up ? std::min<size_t>(size, PIPE_BUF) : size);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0 && errno == EAGAIN) {
      // Whoever shares the descriptor has made it not block.
      pollfd ready{fd, POLLOUT, 0};
      poll(&ready, 1, -1);
      continue;
    }
    if (wrote <= 0) return CannotWrite(name, wrote == 0 ? ENOSPC : errno);
    from += wrote;
    size -= static_cast<size_t>(wrote);
  }
  return absl::OkStatus();
}

}  // namespace kino::command_line
