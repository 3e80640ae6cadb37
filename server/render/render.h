// kino-render's work: one request from a file, one result into a file. One thread.
#pragma once

#include <string>

#include "engine/core/cancel.h"
#include "engine/engine.h"

namespace kino::render {

enum ExitCode {
  kOk = 0,
  kFailed = 1,  // the run failed or was cancelled, or the result cannot be written
  kUsage = 2,
  kBadRequest = 3,  // the request or the model cannot be used
};

struct RenderOptions {
  engine::EngineOptions engine;
  engine::ModelOptions model;
  std::string request_file;
  std::string out;    // .npy or .mp4
  std::string stats;  // empty: none
  std::string taps;   // a folder; empty: none
  bool is_quiet = false;
};

// Whether this build can write such a file; else why not.
absl::Status CheckOutputName(const std::string& out);

// Errors and progress go to standard error.
ExitCode Render(const RenderOptions& options, const engine::CancelToken& cancel);

}  // namespace kino::render
