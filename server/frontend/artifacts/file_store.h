// The files behind jobs: one video file per attempt (appended to as chunks arrive, visible to
// clients only through the job's row), uploaded assets, and uploads under way. All names are the
// server's own. Files of lost attempts and of uploads that broke off are removed at start.
//
// FileStore is thread-safe. A VideoWriter is used by one thread at a time. A VideoFile is immutable
// and may be read by any number of threads; it stays readable after its name is removed.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "scheduler/files/file_layer.h"

namespace kino::frontend {

// A file opened for reading.
class VideoFile {
 public:
  explicit VideoFile(std::unique_ptr<scheduler::File> file) : file_(std::move(file)) {}
  // Exactly `size` bytes at `offset` into `out`. DATA_LOSS when the file is shorter.
  absl::Status Read(int64_t offset, size_t size, std::string& out) const;

 private:
  const std::unique_ptr<scheduler::File> file_;
};

// The file of one running attempt.
class VideoWriter {
 public:
  VideoWriter(std::unique_ptr<scheduler::File> file, int64_t size)
      : file_(std::move(file)), size_(size) {}

  int64_t size() const { return size_; }
  // Bytes that are already there are skipped, so that a replay does no harm. OUT_OF_RANGE: a gap
  // before `offset`. RESOURCE_EXHAUSTED: the disk is full. After an error the file is as it was
  // before.
  absl::Status Append(int64_t offset, std::string_view data);

 private:
  const std::unique_ptr<scheduler::File> file_;
  int64_t size_;
};

// An upload that is being received.
class AssetWriter {
 public:
  AssetWriter(scheduler::FileLayer& files, std::unique_ptr<scheduler::File> file, std::string path)
      : files_(files), file_(std::move(file)), path_(std::move(path)) {}
  // Removes the file unless it was kept.
  ~AssetWriter();
  AssetWriter(const AssetWriter&) = delete;
  AssetWriter& operator=(const AssetWriter&) = delete;

  absl::Status Append(std::string_view data);
  absl::Status Sync();
  const std::string& path() const { return path_; }

 private:
  friend class FileStore;
  scheduler::FileLayer& files_;
  const std::unique_ptr<scheduler::File> file_;
  int64_t size_ = 0;
  std::string path_;  // empty: kept
};

class FileStore {
 public:
  // Creates <data_dir>/videos, assets and uploads where they are missing, durably. `files` must
  // outlive the store and all that it gives.
  static absl::StatusOr<std::unique_ptr<FileStore>> Open(
      const std::string& data_dir, scheduler::FileLayer& files = scheduler::RealFiles());

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
  // Makes the upload durable under its final name. After an error nothing is left of it.
  absl::Status KeepAsset(AssetWriter& upload, const std::string& asset_name);
  std::string AssetPath(const std::string& asset_name) const;
  void RemoveAsset(const std::string& asset_name);

  // Removes the videos, assets and uploads that are left over. Returns how many. `find_left_over`
  // is asked which of some names are, at most 1000 at a time. The sweep ends at its first error,
  // which is returned. REQUIRES: no other use yet.
  using FindLeftOver =
      std::function<absl::StatusOr<std::vector<std::string>>(const std::vector<std::string>&)>;
  absl::StatusOr<int> RemoveLeftovers(const FindLeftOver& find_left_over);

  // What may still be written to the disk that holds the files, in bytes.
  absl::StatusOr<int64_t> FreeBytes() const;

 private:
  FileStore(std::string data_dir, scheduler::FileLayer& files)
      : data_dir_(std::move(data_dir)), files_(files) {}
  std::string VideoPath(const std::string& name) const;

  const std::string data_dir_;
  scheduler::FileLayer& files_;
  absl::Mutex mutex_;
  std::map<std::string, std::weak_ptr<const VideoFile>> open_videos_ ABSL_GUARDED_BY(mutex_);
  int64_t last_upload_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace kino::frontend
