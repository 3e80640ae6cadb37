#include "server/frontend/artifacts/file_store.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/status.h"
#include "server/digest/sha256.h"

namespace kino::frontend {

using scheduler::File;
using scheduler::FileLayer;
using scheduler::OpenMode;

namespace {

constexpr size_t kDigestBytes = 1 << 20;  // read at once

// Clients may see these messages: they name no path. `error` 0 is OK.
absl::Status FileError(int error, const std::string& what) {
  if (error == 0) return absl::OkStatus();
  if (scheduler::IsOutOfSpace(error)) {
    return scheduler::WithReason(
        absl::ResourceExhaustedError(absl::StrCat(what, ": the server's disk is full")),
        scheduler::kReasonDiskFull);
  }
  // Not RESOURCE_EXHAUSTED: that is a disk here.
  if (scheduler::IsOutOfResources(error)) {
    return absl::UnavailableError(absl::StrCat(what, ": the server is short of ",
                                               error == ENOMEM ? "memory" : "descriptors"));
  }
  return absl::ErrnoToStatus(error, what);
}

}  // namespace

absl::Status VideoFile::Read(int64_t offset, size_t size, std::string& out) const {
  out.resize(size);
  size_t got = 0;
  const int error = file_->Read(out.data(), size, offset, got);
  if (error != 0) return FileError(error, "reading a video");
  if (got < size) {
    return absl::DataLossError(
        absl::StrCat("the video ends at byte ", offset + got, ", before byte ", offset + size));
  }
  return absl::OkStatus();
}

absl::Status VideoWriter::Append(int64_t offset, std::string_view data) {
  if (offset < 0 || offset > size_) {
    return absl::OutOfRangeError(
        absl::StrCat("chunk at byte ", offset, " does not follow byte ", size_));
  }
  const int64_t known = size_ - offset;
  if (known >= static_cast<int64_t>(data.size())) return absl::OkStatus();
  data.remove_prefix(static_cast<size_t>(known));
  if (const int error = file_->Write(data, size_); error != 0) {
    if (const int uncut = file_->Truncate(size_); uncut != 0) {
      spdlog::error("a video cannot be cut back to {} bytes: errno {}", size_, uncut);
    }
    return FileError(error, "writing a file");
  }
  size_ += static_cast<int64_t>(data.size());
  return absl::OkStatus();
}

AssetWriter::~AssetWriter() {
  if (path_.empty()) return;
  if (const int error = files_.Unlink(path_); error != 0) {
    spdlog::warn("an upload cannot be removed: errno {}", error);
  }
}

absl::Status AssetWriter::Append(std::string_view data) {
  const int error = file_->Write(data, size_);
  if (error != 0) return FileError(error, "writing an upload");
  size_ += static_cast<int64_t>(data.size());
  return absl::OkStatus();
}

absl::Status AssetWriter::Sync() { return FileError(file_->Sync(), "syncing an upload"); }

absl::StatusOr<std::unique_ptr<FileStore>> FileStore::Open(const std::string& data_dir,
                                                           FileLayer& files) {
  bool is_changed = false;
  for (const char* folder : {"videos", "assets", "uploads"}) {
    const std::string path = absl::StrCat(data_dir, "/", folder);
    const int error = files.MakeFolder(path);
    if (error != 0 && error != EEXIST) {
      return absl::ErrnoToStatus(error, absl::StrCat("cannot create folder '", path, "'"));
    }
    is_changed |= error == 0;
  }
  if (is_changed) {
    const int error = files.SyncFolder(data_dir);
    if (error != 0) {
      return absl::ErrnoToStatus(error, absl::StrCat("cannot sync folder '", data_dir, "'"));
    }
  }
  return std::unique_ptr<FileStore>(new FileStore(data_dir, files));
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
  std::unique_ptr<File> file;
  int error = files_.Open(VideoPath(video_name), OpenMode::kCreate, file);
  if (error != 0) return FileError(error, "creating a video");
  int64_t size = 0;
  error = file->Size(size);
  if (error != 0) return FileError(error, "looking at a video");
  return std::make_unique<VideoWriter>(std::move(file), size);
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
  std::unique_ptr<File> opened;
  const int error = files_.Open(VideoPath(video_name), OpenMode::kRead, opened);
  if (error != 0) {
    open_videos_.erase(video_name);
    return FileError(error, "opening a video");
  }
  auto file = std::make_shared<const VideoFile>(std::move(opened));
  slot = file;
  return file;
}

absl::StatusOr<FileStore::Digest> FileStore::FinishVideo(const std::string& video_name) {
  std::unique_ptr<File> file;
  int error = files_.Open(VideoPath(video_name), OpenMode::kWrite, file);
  if (error != 0) return FileError(error, "opening a file");
  error = file->Sync();
  if (error != 0) return FileError(error, "syncing a file");
  error = files_.SyncFolder(absl::StrCat(data_dir_, "/videos"));
  if (error != 0) return FileError(error, "syncing a folder");
  digest::Sha256 sha256;
  Digest digest;
  std::string bytes(kDigestBytes, '\0');
  size_t got = bytes.size();
  while (got == bytes.size()) {
    error = file->Read(bytes.data(), bytes.size(), digest.size_bytes, got);
    if (error != 0) return FileError(error, "reading a file");
    sha256.Update(bytes.data(), got);
    digest.size_bytes += static_cast<int64_t>(got);
  }
  digest.sha256 = sha256.Hex();
  return digest;
}

void FileStore::RemoveVideo(const std::string& video_name) {
  const int error = files_.Unlink(VideoPath(video_name));
  if (error != 0 && error != ENOENT) {
    spdlog::warn("video {} cannot be removed: errno {}", video_name, error);
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
  std::unique_ptr<File> file;
  const int error = files_.Open(path, OpenMode::kCreateNew, file);
  if (error != 0) return FileError(error, "creating an upload");
  return std::make_unique<AssetWriter>(files_, std::move(file), path);
}

absl::Status FileStore::KeepAsset(AssetWriter& upload, const std::string& asset_name) {
  absl::Status status = upload.Sync();
  if (!status.ok()) return status;
  status = FileError(files_.Rename(upload.path_, AssetPath(asset_name)), "keeping an upload");
  if (!status.ok()) return status;
  upload.path_.clear();
  status = FileError(files_.SyncFolder(absl::StrCat(data_dir_, "/assets")), "syncing a folder");
  // No row will name it, so nothing else would remove it before the next start.
  if (!status.ok()) RemoveAsset(asset_name);
  return status;
}

void FileStore::RemoveAsset(const std::string& asset_name) {
  const int error = files_.Unlink(AssetPath(asset_name));
  if (error != 0 && error != ENOENT) {
    spdlog::warn("asset {} cannot be removed: errno {}", asset_name, error);
  }
}

absl::StatusOr<int> FileStore::RemoveLeftovers(const FindLeftOver& find_left_over) {
  constexpr size_t kAtOnce = 1000;
  int removed = 0;
  for (const char* folder : {"videos", "assets", "uploads"}) {
    const std::string path = absl::StrCat(data_dir_, "/", folder);
    std::vector<std::string> names;
    if (const int error = files_.List(path, names); error != 0) {
      spdlog::warn("folder {} cannot be listed: errno {}", folder, error);
    }
    for (size_t begin = 0; begin < names.size(); begin += kAtOnce) {
      const size_t end = std::min(names.size(), begin + kAtOnce);
      const std::vector<std::string> some(names.begin() + static_cast<std::ptrdiff_t>(begin),
                                          names.begin() + static_cast<std::ptrdiff_t>(end));
      const absl::StatusOr<std::vector<std::string>> left_over = find_left_over(some);
      if (!left_over.ok()) return left_over.status();
      for (const std::string& name : *left_over) {
        if (files_.Unlink(absl::StrCat(path, "/", name)) == 0) ++removed;
      }
    }
  }
  return removed;
}

absl::StatusOr<int64_t> FileStore::FreeBytes() const {
  int64_t bytes = 0;
  const int error = files_.FreeBytes(data_dir_, bytes);
  if (error != 0) return FileError(error, "asking for free space");
  return bytes;
}

}  // namespace kino::frontend
