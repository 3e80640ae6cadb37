#include "server/render/output.h"

#include <cerrno>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace kino::render {

absl::StatusOr<std::unique_ptr<Output>> Output::Create(const std::string& path) {
  std::unique_ptr<Output> output(new Output(path));
  // Opened for .npy as well, so that a folder that cannot be written is told of before the run.
  output->file_ = std::fopen(output->part_.c_str(), "wbe");
  if (output->file_ == nullptr) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write '", output->part_, "'"));
  }
  return output;
}

Output::~Output() {
  if (file_ != nullptr) std::fclose(file_);
  frames_.reset();
  if (!finished_) std::remove(part_.c_str());
}

engine::RunOutput Output::Sink() {
  engine::RunOutput sink;
  if (absl::EndsWith(path_, ".npy")) {
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
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write '", part_, "'"));
  }
  return absl::OkStatus();
}

absl::Status Output::Finish() {
  const int closed = std::fclose(file_);
  file_ = nullptr;
  if (closed != 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write '", part_, "'"));
  if (frames_ != nullptr) {
    if (absl::Status status = frames_->Finish(); !status.ok()) return status;
  }
  std::error_code error;
  std::filesystem::rename(part_, path_, error);
  if (error) {
    return absl::InternalError(absl::StrCat("cannot write '", path_, "': ", error.message()));
  }
  finished_ = true;
  return absl::OkStatus();
}

}  // namespace kino::render
