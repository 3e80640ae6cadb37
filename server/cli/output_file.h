// The file a video is written to as its chunks arrive: FILE.part until it is whole and its SHA-256
// is the artifact's, then FILE. One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kino::cli {

class OutputFile {
 public:
  // `path` empty: chunks are counted and dropped.
  static absl::StatusOr<std::unique_ptr<OutputFile>> Create(const std::string& path);
  // Removes FILE.part unless Finish succeeded.
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // Bytes of another attempt replace all before them. DATA_LOSS when `offset` is not where the last
  // chunk ended.
  absl::Status Write(int attempt, int64_t offset, const std::string& data);
  // Verifies size and digest, then renames. DATA_LOSS when they differ.
  absl::Status Finish(int64_t size_bytes, const std::string& sha256);

  int attempt() const { return attempt_; }
  int64_t offset() const { return offset_; }

 private:
  OutputFile(std::string path, int fd) : path_(std::move(path)), part_(path_ + ".part"), fd_(fd) {}

  const std::string path_, part_;
  int fd_;
  int attempt_ = 0;
  int64_t offset_ = 0;
  bool finished_ = false;
};

}  // namespace kino::cli
