#include "server/config/data_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace kino::config {
namespace {

absl::Status FromErrno(int error, const std::string& what) {
  return absl::ErrnoToStatus(error, what);
}

// FNV-1a: only to give two data folders two socket names.
uint64_t Fingerprint(const std::string& text) {
  uint64_t hash = 14695981039346656037ull;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return hash;
}

std::string SecretPath(const Config& config) {
  return absl::StrCat(config.data_dir, "/run/link.secret");
}

absl::Status MakePrivateFolder(const std::string& path) {
  std::error_code error;
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  std::filesystem::create_directories(parent, error);
  if (error) {
    return FromErrno(error.value(), absl::StrCat("cannot create folder '", parent.string(), "'"));
  }
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return FromErrno(errno, absl::StrCat("cannot create folder '", path, "'"));
  }
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) {
    return FromErrno(errno, absl::StrCat("cannot look at folder '", path, "'"));
  }
  if (!S_ISDIR(info.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat("'", path, "' is not a folder"));
  }
  return absl::OkStatus();
}

// Makes durable which names the folder has. An errno, or 0.
int SyncFolder(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno;
  const int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  return error;
}

}  // namespace

absl::Status WriteFileAtomically(const std::string& path, const std::string& content,
                                 unsigned mode) {
  const std::string temporary = absl::StrCat(path, ".tmp.", getpid());
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
                      static_cast<mode_t>(mode));
  if (fd < 0) return FromErrno(errno, absl::StrCat("cannot write '", path, "'"));
  int error = 0;
  for (size_t done = 0; done < content.size() && error == 0;) {
    const ssize_t n = write(fd, content.data() + done, content.size() - done);
    if (n < 0 && errno != EINTR) error = errno;
    if (n > 0) done += static_cast<size_t>(n);
  }
  if (error == 0 && fsync(fd) != 0) error = errno;
  close(fd);
  if (error == 0 && rename(temporary.c_str(), path.c_str()) != 0) error = errno;
  if (error != 0) {
    unlink(temporary.c_str());
    return FromErrno(error, absl::StrCat("cannot write '", path, "'"));
  }
  const std::string folder = std::filesystem::path(path).parent_path().string();
  error = SyncFolder(folder.empty() ? "." : folder);
  if (error != 0) return FromErrno(error, absl::StrCat("cannot sync the folder of '", path, "'"));
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FromErrno(errno, absl::StrCat("cannot read '", path, "'"));
  std::string content(max_bytes + 1, '\0');
  size_t size = 0;
  int error = 0;
  while (size < content.size()) {
    const ssize_t n = read(fd, content.data() + size, content.size() - size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) error = errno;
    if (n <= 0) break;
    size += static_cast<size_t>(n);
  }
  close(fd);
  if (error != 0) return FromErrno(error, absl::StrCat("cannot read '", path, "'"));
  if (size > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "' is longer than ", max_bytes, " bytes"));
  }
  content.resize(size);
  return content;
}

absl::Status PrepareDataDir(const Config& config) {
  for (const std::string& folder : {config.data_dir, absl::StrCat(config.data_dir, "/run")}) {
    const absl::Status made = MakePrivateFolder(folder);
    if (!made.ok()) {
      return absl::Status(made.code(), absl::StrCat("data folder: ", made.message()));
    }
  }
  const std::string probe = absl::StrCat(config.data_dir, "/run/probe");
  const absl::Status written = WriteFileAtomically(probe, "kino\n", 0600);
  if (!written.ok()) {
    return absl::Status(written.code(), absl::StrCat("data folder '", config.data_dir,
                                                     "' is not writable: ", written.message()));
  }
  unlink(probe.c_str());
  return absl::OkStatus();
}

std::string LinkSocketPath(const Config& config) {
  const std::string path = absl::StrCat(config.data_dir, "/run/link.sock");
  // gRPC's unix resolver wants room for the final zero.
  if (path.size() < sizeof(sockaddr_un::sun_path)) return path;
  return absl::StrFormat("/tmp/kino-%d-%016x/link.sock", getuid(), Fingerprint(config.data_dir));
}

std::string LinkAddress(const Config& config) {
  return absl::StrCat("unix:", LinkSocketPath(config));
}

absl::Status PrepareLinkFolder(const Config& config) {
  const std::string folder = std::filesystem::path(LinkSocketPath(config)).parent_path().string();
  const absl::Status made = MakePrivateFolder(folder);
  if (!made.ok()) return made;
  struct stat info {};
  if (lstat(folder.c_str(), &info) != 0) {
    return FromErrno(errno, absl::StrCat("cannot look at folder '", folder, "'"));
  }
  if (info.st_uid != geteuid() || (info.st_mode & 0077) != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat("folder '", folder, "' must belong to this user and be closed to others"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadLinkSecret(const Config& config) {
  absl::StatusOr<std::string> secret = ReadSmallFile(SecretPath(config), 256);
  if (!secret.ok()) return secret.status();
  const std::string text(absl::StripAsciiWhitespace(*secret));
  if (text.size() != 64) {
    return absl::FailedPreconditionError(absl::StrCat(
        "'", SecretPath(config), "' should hold 64 hexadecimal digits; remove it to make another"));
  }
  return text;
}

absl::StatusOr<std::string> EnsureLinkSecret(const Config& config) {
  absl::StatusOr<std::string> existing = ReadLinkSecret(config);
  if (existing.ok() || !absl::IsNotFound(existing.status())) return existing;
  unsigned char bytes[32];
  if (getrandom(bytes, sizeof(bytes), 0) != static_cast<ssize_t>(sizeof(bytes))) {
    return FromErrno(errno, "no random bytes for the link secret");
  }
  std::string secret;
  for (const unsigned char byte : bytes) absl::StrAppendFormat(&secret, "%02x", byte);
  const absl::Status written = WriteFileAtomically(SecretPath(config), secret, 0600);
  if (!written.ok()) return written;
  return secret;
}

absl::Status WriteAddressFile(const Config& config, const std::string& name,
                              const std::string& address) {
  return WriteFileAtomically(absl::StrCat(config.data_dir, "/", name), absl::StrCat(address, "\n"),
                             0600);
}

}  // namespace kino::config
