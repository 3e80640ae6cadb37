// Where kino-render's result goes: FILE.part while it runs, FILE once it is whole; or a stream, as
// it comes. One thread at a time.
#pragma once

#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/media/npy.h"

namespace kino::render {

class Output {
 public:
  // `name` ends with .npy (float32 [T, H, W, 3] in 0..1) or .mp4, or is "-": standard output, as
  // MP4. See command_line::OpenOutputTarget. FAILED_PRECONDITION: a .npy file into a stream.
  static absl::StatusOr<std::unique_ptr<Output>> Create(const std::string& name);
  // Removes what was not finished.
  ~Output();
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  // For engine::RunOptions; valid while this lives.
  engine::RunOutput Sink();
  absl::Status Finish();

 private:
  Output(const std::string& name, const std::string& file)
      : name_(name), file_name_(file), part_(file.empty() ? "" : file + ".part") {}
  absl::Status TakeFrames(const engine::FloatFrames& frames);
  absl::Status TakeBytes(std::string_view bytes);

  const std::string name_;
  const std::string file_name_, part_;  // empty: a stream
  bool finished_ = false;
  std::FILE* file_ = nullptr;                  // of an .mp4
  std::unique_ptr<engine::NpyWriter> frames_;  // of an .npy, from the first frame on
};

}  // namespace kino::render
