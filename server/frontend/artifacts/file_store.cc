#include "server/frontend/artifacts/file_store.h"

#include <errno.h>
#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/digest/sha256.h"

namespace kino::frontend {
namespace {

// Clients may see these messages: they name no path.
absl::Status FileError(int error, const std::string& what) {
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    return absl::ResourceExhaustedError(absl::StrCat(what, ": the server's disk is full"));
  }
  return absl::ErrnoToStatus(error, what);
}

absl::Status WriteAll(int fd, std::string_view data, int64_t offset) {
  while (!data.empty()) {
    const ssize_t n = pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError(errno, "writing a file");
    data.remove_prefix(static_cast<size_t>(n));
    offset += n;
  }
  return absl::OkStatus();
}

absl::Status SyncFolder(const std::string& folder) {
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return FileError(errno, "opening a folder");
  const int result = fsync(fd);
  const int error = errno;
  close(fd);
  return result == 0 ? absl::OkStatus() : FileError(error, "syncing a folder");
}

// Makes what was written durable. A failed fsync is reported once only by the system, so it is
// never retried.
absl::Status SyncFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return FileError(errno, "opening a file");
  const int result = fsync(fd);
  const int error = errno;
  close(fd);
  return result == 0 ? absl::OkStatus() : FileError(error, "syncing a file");
}

}  // namespace

VideoFile::~VideoFile() { close(fd_); }

absl::Status VideoFile::Read(int64_t offset, size_t size, std::string& out) const {
  out.resize(size);
  size_t done = 0;
  while (done < size) {
    const ssize_t n = pread(fd_, out.data() + done, size - done,
                            static_cast<off_t>(offset + static_cast<int64_t>(done)));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError(errno, "reading a video");
    if (n == 0) {
      return absl::DataLossError(
          absl::StrCat("the video ends at byte ", offset + done, ", before byte ", offset + size));
    }
    done += static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

VideoWriter::~VideoWriter() { close(fd_); }

absl::Status VideoWriter::Append(int64_t offset, std::string_view data) {
  if (offset < 0 || offset > size_) {
    return absl::OutOfRangeError(
        absl::StrCat("chunk at byte ", offset, " does not follow byte ", size_));
  }
  const int64_t known = size_ - offset;
  if (known >= static_cast<int64_t>(data.size())) return absl::OkStatus();
  data.remove_prefix(static_cast<size_t>(known));
  const absl::Status written = WriteAll(fd_, data, size_);
  if (!written.ok()) {
    if (ftruncate(fd_, static_cast<off_t>(size_)) != 0) {
      spdlog::error("a video cannot be cut back to {} bytes: errno {}", size_, errno);
    }
    return written;
  }
  size_ += static_cast<int64_t>(data.size());
  return absl::OkStatus();
}

AssetWriter::~AssetWriter() {
  close(fd_);
  if (!path_.empty()) unlink(path_.c_str());
}

absl::Status AssetWriter::Append(std::string_view data) {
  const off_t end = lseek(fd_, 0, SEEK_END);
  if (end < 0) return FileError(errno, "writing an upload");
  return WriteAll(fd_, data, end);
}

absl::Status AssetWriter::Sync() {
  return fsync(fd_) == 0 ? absl::OkStatus() : FileError(errno, "syncing an upload");
}

absl::StatusOr<std::unique_ptr<FileStore>> FileStore::Open(const std::string& data_dir) {
  for (const char* folder : {"videos", "assets", "uploads"}) {
    const std::string path = absl::StrCat(data_dir, "/", folder);
    if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot create folder '", path, "'"));
    }
  }
  return std::unique_ptr<FileStore>(new FileStore(data_dir));
}

std::string FileStore::VideoName(const std::string& job_id, int attempt) {
  return absl::StrCat(job_id, ".", attempt, ".mp4");
}

std::string FileStore::VideoPath(const std::string& name) const {
  return absl::StrCat(data_dir_, "/videos/", name);
}

std::string FileStore::AssetPath(const std::string& asset_name) const {
  return absl::StrCat(data_dir_, "/assets/", asset_name);
}

absl::StatusOr<std::unique_ptr<VideoWriter>> FileStore::OpenWriter(const std::string& video_name) {
  const int fd =
      open(VideoPath(video_name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return FileError(errno, "creating a video");
  struct stat info {};
  if (fstat(fd, &info) != 0) {
    const int error = errno;
    close(fd);
    return FileError(error, "looking at a video");
  }
  return std::make_unique<VideoWriter>(fd, info.st_size);
}

absl::StatusOr<std::shared_ptr<const VideoFile>> FileStore::OpenVideo(
    const std::string& video_name) {
  absl::MutexLock lock(&mutex_);
  std::weak_ptr<const VideoFile>& slot = open_videos_[video_name];
  if (std::shared_ptr<const VideoFile> file = slot.lock()) return file;
  // No reader is left of the others that have expired.
  std::erase_if(open_videos_, [&](const auto& entry) {
    return entry.first != video_name && entry.second.expired();
  });
  const int fd = open(VideoPath(video_name).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) {
    const int error = errno;
    open_videos_.erase(video_name);
    return FileError(error, "opening a video");
  }
  auto file = std::make_shared<const VideoFile>(fd);
  slot = file;
  return file;
}

absl::StatusOr<FileStore::Digest> FileStore::FinishVideo(const std::string& video_name) {
  const std::string path = VideoPath(video_name);
  absl::Status synced = SyncFile(path);
  if (synced.ok()) synced = SyncFolder(absl::StrCat(data_dir_, "/videos"));
  if (!synced.ok()) return synced;
  absl::StatusOr<digest::FileDigest> digest = digest::DigestFile(path);
  if (!digest.ok()) return digest.status();
  return Digest{.size_bytes = digest->size_bytes, .sha256 = digest->sha256};
}

void FileStore::RemoveVideo(const std::string& video_name) {
  if (unlink(VideoPath(video_name).c_str()) != 0 && errno != ENOENT) {
    spdlog::warn("video {} cannot be removed: errno {}", video_name, errno);
  }
  absl::MutexLock lock(&mutex_);
  open_videos_.erase(video_name);
}

absl::StatusOr<std::unique_ptr<AssetWriter>> FileStore::CreateUpload() {
  int64_t number = 0;
  {
    absl::MutexLock lock(&mutex_);
    number = ++last_upload_;
  }
  const std::string path = absl::StrCat(data_dir_, "/uploads/", number);
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return FileError(errno, "creating an upload");
  return std::make_unique<AssetWriter>(fd, path);
}

absl::Status FileStore::KeepAsset(AssetWriter& upload, const std::string& asset_name) {
  const absl::Status synced = upload.Sync();
  if (!synced.ok()) return synced;
  if (rename(upload.path_.c_str(), AssetPath(asset_name).c_str()) != 0) {
    return FileError(errno, "keeping an upload");
  }
  upload.path_.clear();
  return SyncFolder(absl::StrCat(data_dir_, "/assets"));
}

void FileStore::RemoveAsset(const std::string& asset_name) {
  if (unlink(AssetPath(asset_name).c_str()) != 0 && errno != ENOENT) {
    spdlog::warn("asset {} cannot be removed: errno {}", asset_name, errno);
  }
}

absl::StatusOr<int64_t> FileStore::FreeBytes() const {
  struct statvfs info {};
  if (statvfs(data_dir_.c_str(), &info) != 0) return FileError(errno, "looking at the disk");
  return static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
}

int FileStore::RemoveLeftovers(const std::set<std::string>& live) {
  int removed = 0;
  for (const char* folder : {"videos", "assets", "uploads"}) {
    std::error_code error;
    for (const auto& entry :
         std::filesystem::directory_iterator(absl::StrCat(data_dir_, "/", folder), error)) {
      if (live.count(entry.path().filename().string()) != 0) continue;
      if (unlink(entry.path().c_str()) == 0) ++removed;
    }
    if (error) spdlog::warn("folder {} cannot be listed: {}", folder, error.message());
  }
  return removed;
}

}  // namespace kino::frontend
