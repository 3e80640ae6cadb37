#include "scheduler/files/file_layer.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace kino::scheduler {

namespace {

// Calls until the call is not interrupted; 0 or the errno.
template <typename Call>
int Errno(Call call) {
  while (call() < 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

class RealFile final : public File {
 public:
  explicit RealFile(int fd) : fd_(fd) {}
  ~RealFile() override { close(fd_); }

  int Write(std::string_view data, int64_t offset) override {
    while (!data.empty()) {
      const ssize_t n = pwrite(fd_, data.data(), data.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno;
      data.remove_prefix(static_cast<size_t>(n));
      offset += n;
    }
    return 0;
  }

  int Read(char* out, size_t size, int64_t offset, size_t& got) const override {
    got = 0;
    while (got < size) {
      const ssize_t n =
          pread(fd_, out + got, size - got, static_cast<off_t>(offset + static_cast<int64_t>(got)));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno;
      if (n == 0) break;
      got += static_cast<size_t>(n);
    }
    return 0;
  }

  int Truncate(int64_t size) override {
    return Errno([&] { return ftruncate(fd_, static_cast<off_t>(size)); });
  }

  int Punch(int64_t offset, int64_t size) override {
    return Errno([&] {
      return fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                       static_cast<off_t>(size));
    });
  }

  int Size(int64_t& size) const override {
    struct stat info {};
    if (fstat(fd_, &info) != 0) return errno;
    size = info.st_size;
    return 0;
  }

  int Sync() override { return fsync(fd_) == 0 ? 0 : errno; }

  int TryLock() override {
    return Errno([&] { return flock(fd_, LOCK_EX | LOCK_NB); });
  }

 private:
  const int fd_;
};

int Flags(OpenMode mode) {
  switch (mode) {
    case OpenMode::kRead:
      return O_RDONLY;
    case OpenMode::kWrite:
      return O_RDWR;
    case OpenMode::kCreate:
      return O_RDWR | O_CREAT;
    case OpenMode::kCreateNew:
      return O_RDWR | O_CREAT | O_EXCL;
  }
  return O_RDONLY;
}

class RealFileLayer final : public FileLayer {
 public:
  int Open(const std::string& path, OpenMode mode, std::unique_ptr<File>& file) override {
    int fd = -1;
    const int error =
        Errno([&] { return fd = open(path.c_str(), Flags(mode) | O_CLOEXEC | O_NOFOLLOW, 0600); });
    if (error == 0) file = std::make_unique<RealFile>(fd);
    return error;
  }

  int Rename(const std::string& from, const std::string& to) override {
    return Errno([&] { return rename(from.c_str(), to.c_str()); });
  }

  int Unlink(const std::string& path) override {
    return Errno([&] { return unlink(path.c_str()); });
  }

  int MakeFolder(const std::string& path) override {
    return Errno([&] { return mkdir(path.c_str(), 0700); });
  }

  int SyncFolder(const std::string& path) override {
    int fd = -1;
    const int opened =
        Errno([&] { return fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
    if (opened != 0) return opened;
    const int error = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    return error;
  }

  int List(const std::string& path, std::vector<std::string>& names) override {
    names.clear();
    DIR* const folder = opendir(path.c_str());
    if (folder == nullptr) return errno;
    int error = 0;
    while (true) {
      errno = 0;
      const dirent* const entry = readdir(folder);
      if (entry == nullptr) {
        error = errno;
        break;
      }
      if (std::strcmp(entry->d_name, ".") == 0 || std::strcmp(entry->d_name, "..") == 0) continue;
      names.emplace_back(entry->d_name);
    }
    closedir(folder);
    return error;
  }

  int FreeBytes(const std::string& path, int64_t& bytes) override {
    struct statvfs info {};
    const int error = Errno([&] { return statvfs(path.c_str(), &info); });
    if (error == 0)
      bytes = static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
    return error;
  }
};

}  // namespace

FileLayer& RealFiles() {
  static FileLayer* const files = new RealFileLayer;
  return *files;
}

bool IsOutOfSpace(int error) { return error == ENOSPC || error == EDQUOT || error == EFBIG; }

bool IsOutOfResources(int error) { return error == EMFILE || error == ENFILE || error == ENOMEM; }

}  // namespace kino::scheduler
