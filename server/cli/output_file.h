// Where a video is written to as its chunks arrive. A file is FILE.part until it is whole and its
// SHA-256 is the artifact's, then FILE; a stream (standard output, a pipe, a device) gets the
// chunks as they come. One thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/command_line/output_target.h"
#include "server/digest/sha256.h"

namespace kino::cli {

class OutputFile {
 public:
  // `name` as command_line::OpenOutputTarget takes it; empty: chunks are counted and dropped.
  // `give_up` is asked while a stream takes nothing more: Write is CANCELLED then.
  static absl::StatusOr<std::unique_ptr<OutputFile>> Create(
      const std::string& name, std::function<bool()> give_up = nullptr);
  // Removes FILE.part unless Finish succeeded.
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // Bytes of another attempt replace all before them. What a stream has taken cannot be replaced:
  // there they have to be the same again, as far as it got. DATA_LOSS when they are not, or when
  // `offset` is not where the last chunk ended.
  absl::Status Write(int attempt, int64_t offset, const std::string& data);
  // Verifies size and digest, then renames a file. DATA_LOSS when they differ.
  absl::Status Finish(int64_t size_bytes, const std::string& sha256);

  int attempt() const { return attempt_; }
  int64_t offset() const { return offset_; }
  // Nothing else may be printed there then.
  bool is_stdout() const { return target_.is_stdout; }

 private:
  OutputFile(std::string name, command_line::OutputTarget target, int fd)
      : name_(std::move(name)),
        target_(std::move(target)),
        part_(target_.file + ".part"),
        fd_(fd) {}
  absl::Status BeginAttempt(int attempt);
  absl::Status WriteStream(const std::string& data);
  absl::Status CheckWhole(int64_t size_bytes, const std::string& sha256,
                          const digest::FileDigest& got) const;
  bool is_stream() const { return fd_ >= 0 && target_.file.empty(); }

  const std::string name_;
  const command_line::OutputTarget target_;
  const std::string part_;
  std::function<bool()> give_up_;
  int fd_;
  int attempt_ = 0;
  int64_t offset_ = 0;
  bool finished_ = false;
  // Of a stream: what this attempt has given, and what the stream had taken before it began.
  std::unique_ptr<digest::Sha256> sent_ = std::make_unique<digest::Sha256>();
  int64_t taken_bytes_ = 0;
  std::string taken_sha256_;
};

}  // namespace kino::cli
