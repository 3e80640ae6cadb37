#include "server/command_line/input.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/command_line/output_target.h"

namespace kino::command_line {
namespace {

constexpr size_t kPieceBytes = 1 << 20;
// A request's conditions may stand in it as bytes.
constexpr size_t kMaxTextBytes = size_t{256} << 20;

absl::Status CannotRead(const std::string& name, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat("'", name, "' cannot be read: ", why));
}

absl::Status CannotRead(const std::string& name, int error) {
  return CannotRead(name, std::string(std::strerror(error)));
}

absl::StatusOr<int> Open(const std::string& name) {
  const int fd = name == "-" ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
                             : open(name.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return CannotRead(name, errno);
  return fd;
}

// Hands every piece to `take` until the end.
template <typename Take>
absl::Status ReadPieces(int fd, const std::string& name, const Take& take) {
  std::vector<char> piece(kPieceBytes);
  while (true) {
    const ssize_t got = read(fd, piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return CannotRead(name, errno);
    if (got == 0) return absl::OkStatus();
    if (absl::Status taken = take(piece.data(), static_cast<size_t>(got)); !taken.ok()) {
      return taken;
    }
  }
}

absl::StatusOr<int> OpenUnnamed() {
  std::error_code ignored;
  const std::filesystem::path folder = std::filesystem::temp_directory_path(ignored);
  std::string path = ((ignored ? "/tmp" : folder) / "kino-input.XXXXXX").string();
  const int fd = mkostemp(path.data(), O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write '", path, "'"));
  unlink(path.c_str());
  return fd;
}

}  // namespace

absl::StatusOr<std::string> ReadInputText(const std::string& name) {
  const absl::StatusOr<int> fd = Open(name);
  if (!fd.ok()) return fd.status();
  const absl::Cleanup close_fd = [&fd] { close(*fd); };
  std::string text;
  const absl::Status read = ReadPieces(*fd, name, [&](const char* data, size_t size) {
    if (text.size() + size > kMaxTextBytes) {
      return CannotRead(name, absl::StrCat("it has more than ", kMaxTextBytes, " bytes"));
    }
    text.append(data, size);
    return absl::OkStatus();
  });
  if (!read.ok()) return read;
  if (text.empty()) return CannotRead(name, "it is empty");
  return text;
}

absl::StatusOr<int> OpenInputFile(const std::string& name, int64_t max_bytes) {
  const absl::StatusOr<int> fd = Open(name);
  if (!fd.ok()) return fd.status();
  absl::Cleanup close_fd = [&fd] { close(*fd); };
  struct stat info {};
  if (fstat(*fd, &info) != 0) return CannotRead(name, errno);
  if (S_ISREG(info.st_mode)) {
    std::move(close_fd).Cancel();
    return *fd;
  }
  const absl::StatusOr<int> copy = OpenUnnamed();
  if (!copy.ok()) return copy.status();
  int64_t kept = 0;
  const absl::Status read = ReadPieces(*fd, name, [&](const char* data, size_t size) {
    kept += static_cast<int64_t>(size);
    if (kept > max_bytes) {
      return CannotRead(name,
                        absl::StrCat("more than ", max_bytes, " bytes came out of it and no end"));
    }
    return WriteAll(*copy, data, size, absl::StrCat("a temporary copy of ", name));
  });
  if (!read.ok()) {
    close(*copy);
    return read;
  }
  return *copy;
}

}  // namespace kino::command_line
