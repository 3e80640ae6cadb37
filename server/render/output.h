// Where kino-render's result goes: FILE.part while it runs, FILE once it is whole. One thread at a
// time.
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
  // `path` ends with .npy (float32 [T, H, W, 3] in 0..1) or .mp4.
  static absl::StatusOr<std::unique_ptr<Output>> Create(const std::string& path);
  // Removes what was not finished.
  ~Output();
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  // For engine::RunOptions; valid while this lives.
  engine::RunOutput Sink();
  absl::Status Finish();

 private:
  explicit Output(const std::string& path) : path_(path), part_(path + ".part") {}
  absl::Status TakeFrames(const engine::FloatFrames& frames);
  absl::Status TakeBytes(std::string_view bytes);

  const std::string path_, part_;
  bool finished_ = false;
  std::FILE* file_ = nullptr;                  // of an .mp4
  std::unique_ptr<engine::NpyWriter> frames_;  // of an .npy, from the first frame on
};

}  // namespace kino::render
