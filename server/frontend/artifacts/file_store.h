// The files behind jobs: one video file per attempt (appended to as chunks arrive, visible to
// clients only through the job's row), uploaded assets, and uploads under way. All names are the
// server's own. Files of lost attempts and of uploads that broke off are removed at start.
//
// FileStore is thread-safe. A VideoWriter is used by one thread at a time. A VideoFile is immutable
// and may be read by any number of threads; it stays readable after its name is removed.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace kino::frontend {

// A file opened for reading; owns the descriptor.
class VideoFile {
 public:
  explicit VideoFile(int fd) : fd_(fd) {}
  ~VideoFile();
  VideoFile(const VideoFile&) = delete;
  VideoFile& operator=(const VideoFile&) = delete;
  // Exactly `size` bytes at `offset` into `out`. DATA_LOSS when the file is shorter.
  absl::Status Read(int64_t offset, size_t size, std::string& out) const;

 private:
  const int fd_;
};

// The file of one running attempt.
class VideoWriter {
 public:
  VideoWriter(int fd, int64_t size) : fd_(fd), size_(size) {}
  ~VideoWriter();
  VideoWriter(const VideoWriter&) = delete;
  VideoWriter& operator=(const VideoWriter&) = delete;

  int64_t size() const { return size_; }
  // Bytes that are already there are skipped, so that a replay does no harm. OUT_OF_RANGE: a gap
  // before `offset`. RESOURCE_EXHAUSTED: the disk is full; the file is as it was before.
  absl::Status Append(int64_t offset, std::string_view data);

 private:
  const int fd_;
  int64_t size_;
};

// An upload that is being received.
class AssetWriter {
 public:
  AssetWriter(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  // Removes the file unless it was kept.
  ~AssetWriter();
  AssetWriter(const AssetWriter&) = delete;
  AssetWriter& operator=(const AssetWriter&) = delete;

  absl::Status Append(std::string_view data);
  absl::Status Sync();
  const std::string& path() const { return path_; }

 private:
  friend class FileStore;
  int fd_;
  std::string path_;
};

class FileStore {
 public:
  // Creates <data_dir>/videos, assets and uploads where they are missing.
  static absl::StatusOr<std::unique_ptr<FileStore>> Open(const std::string& data_dir);

  // "<job>.<attempt>.mp4": what the store's rows call it.
  static std::string VideoName(const std::string& job_id, int attempt);

  // Opens the attempt's file, creating it when it is not there.
  absl::StatusOr<std::unique_ptr<VideoWriter>> OpenWriter(const std::string& video_name);
  // Shared by all readers of the file. NOT_FOUND.
  absl::StatusOr<std::shared_ptr<const VideoFile>> OpenVideo(const std::string& video_name);
  // Makes the file durable (the file, then its folder) and returns its size and SHA-256.
  struct Digest {
    int64_t size_bytes = 0;
    std::string sha256;
  };
  absl::StatusOr<Digest> FinishVideo(const std::string& video_name);
  void RemoveVideo(const std::string& video_name);

  absl::StatusOr<std::unique_ptr<AssetWriter>> CreateUpload();
  // Gives a synced upload its final name, durably.
  absl::Status KeepAsset(AssetWriter& upload, const std::string& asset_name);
  std::string AssetPath(const std::string& asset_name) const;
  void RemoveAsset(const std::string& asset_name);

  // Removes every video and asset that `live` does not name, and all uploads. Returns how many.
  // REQUIRES: no other use yet.
  int RemoveLeftovers(const std::set<std::string>& live);

  // What is left for others than root on the disk of the data folder.
  absl::StatusOr<int64_t> FreeBytes() const;

 private:
  explicit FileStore(std::string data_dir) : data_dir_(std::move(data_dir)) {}
  std::string VideoPath(const std::string& name) const;

  const std::string data_dir_;
  absl::Mutex mutex_;
  std::map<std::string, std::weak_ptr<const VideoFile>> open_videos_ ABSL_GUARDED_BY(mutex_);
  int64_t last_upload_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace kino::frontend
