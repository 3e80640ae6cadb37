#include "server/render/output.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/command_line/output_target.h"

namespace kino::render {
namespace {

// While it lives, SIGINT and SIGTERM end a call that waits: opening a pipe waits for its reader.
class EndingSignals {
 public:
  EndingSignals() { Set(0); }
  ~EndingSignals() { Set(SA_RESTART); }
  EndingSignals(const EndingSignals&) = delete;
  EndingSignals& operator=(const EndingSignals&) = delete;

 private:
  static void Set(int restart) {
    for (const int signal : {SIGINT, SIGTERM}) {
      struct sigaction action {};
      if (sigaction(signal, nullptr, &action) != 0) continue;
      action.sa_flags = (action.sa_flags & ~SA_RESTART) | restart;
      sigaction(signal, &action, nullptr);
    }
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<Output>> Output::Create(const std::string& name) {
  const bool is_npy = absl::EndsWith(name, ".npy");
  const absl::StatusOr<bool> is_stream = command_line::IsOutputStream(name);
  if (!is_stream.ok()) return is_stream.status();
  if (is_npy && *is_stream) {
    return absl::FailedPreconditionError(absl::StrCat(
        "cannot write '", name,
        "': it takes bytes as they come, but a .npy file's first bytes are known last; use .mp4"));
  }
  absl::StatusOr<command_line::OutputTarget> target = [&name] {
    const EndingSignals ending;
    return command_line::OpenOutputTarget(name);
  }();
  if (!target.ok()) return target.status();
  std::unique_ptr<Output> output(new Output(name, target->file));
  int fd = target->fd;
  if (!target->file.empty()) {
    // Opened for .npy as well, so that a folder that cannot be written is told of before the run.
    const absl::StatusOr<int> part = command_line::OpenPartFile(output->part_);
    if (!part.ok()) return part.status();
    fd = *part;
  }
  output->file_ = fdopen(fd, "wb");
  if (output->file_ == nullptr) {
    const int error = errno;
    close(fd);
    return absl::ErrnoToStatus(error, absl::StrCat("cannot write '", name, "'"));
  }
  return output;
}

Output::~Output() {
  if (file_ != nullptr) std::fclose(file_);
  frames_.reset();
  if (!finished_ && !part_.empty()) std::remove(part_.c_str());
}

engine::RunOutput Output::Sink() {
  engine::RunOutput sink;
  if (absl::EndsWith(name_, ".npy")) {
    sink.frames = [this](const engine::FloatFrames& frames) { return TakeFrames(frames); };
  } else {
    sink.mp4 = [this](std::string_view bytes) { return TakeBytes(bytes); };
  }
  return sink;
}

absl::Status Output::TakeFrames(const engine::FloatFrames& frames) {
  if (frames_ == nullptr) {
    auto writer = engine::NpyWriter::Create(part_, frames.height, frames.width);
    if (!writer.ok()) return writer.status();
    frames_ = *std::move(writer);
  }
  const size_t frame_size =
      size_t{3} * static_cast<size_t>(frames.height) * static_cast<size_t>(frames.width);
  for (int i = 0; i < frames.num_frames; ++i) {
    absl::Status status = frames_->AddFrame(frames.data + frame_size * static_cast<size_t>(i));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Output::TakeBytes(std::string_view bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write '", name_, "'"));
  }
  return absl::OkStatus();
}

absl::Status Output::Finish() {
  const int closed = std::fclose(file_);
  file_ = nullptr;
  if (closed != 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write '", name_, "'"));
  if (frames_ != nullptr) {
    if (absl::Status status = frames_->Finish(); !status.ok()) return status;
  }
  if (!part_.empty()) {
    std::error_code error;
    std::filesystem::rename(part_, file_name_, error);
    if (error) {
      return absl::InternalError(absl::StrCat("cannot write '", name_, "': ", error.message()));
    }
  }
  finished_ = true;
  return absl::OkStatus();
}

}  // namespace kino::render
