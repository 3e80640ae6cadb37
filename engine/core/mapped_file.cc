#include "engine/core/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "engine/core/git_lfs.h"

namespace kino::engine {

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path, const char* kind) {
  const std::string where = absl::StrCat(kind, " '", path, "': ");
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, where + "cannot open");
  absl::Cleanup close_fd = [fd] { close(fd); };
  struct stat info;
  if (fstat(fd, &info) != 0) return absl::ErrnoToStatus(errno, where + "cannot stat");
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(where + "not a regular file");
  const size_t size = static_cast<size_t>(info.st_size);
  void* map = nullptr;
  if (size > 0) {
    map = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) return absl::ErrnoToStatus(errno, where + "cannot map");
  }
  MappedFile file(map, size,
                  absl::StrCat(info.st_dev, ":", info.st_ino, ":", info.st_size, ":",
                               info.st_mtim.tv_sec, ".", info.st_mtim.tv_nsec, ";"));
  if (IsGitLfsPointer({reinterpret_cast<const char*>(file.data()), file.size()})) {
    return absl::InvalidArgumentError(absl::StrCat(kind, " '", path, "' ", kGitLfsPointer));
  }
  return file;
}

MappedFile::MappedFile(void* map, size_t size, std::string identity)
    : map_(map), size_(size), identity_(std::move(identity)) {}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : map_(std::exchange(other.map_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      identity_(std::move(other.identity_)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(map_, other.map_);
  std::swap(size_, other.size_);
  std::swap(identity_, other.identity_);
  return *this;
}

MappedFile::~MappedFile() {
  if (map_ != nullptr) munmap(map_, size_);
}

}  // namespace kino::engine
