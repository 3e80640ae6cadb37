// kino-render's work: requests from files, each one's result into a file, with one loaded model.
// One thread.
#pragma once

#include <string>
#include <vector>

#include "engine/core/cancel.h"
#include "engine/engine.h"

namespace kino::render {

enum ExitCode {
  kOk = 0,
  kFailed = 1,  // the run failed or was cancelled, or the result cannot be written
  kUsage = 2,
  kBadRequest = 3,  // the request or the model cannot be used
};

// What one request reads and writes.
struct RenderFiles {
  std::string request;
  std::string out;    // .npy or .mp4
  std::string stats;  // empty: none
  std::string taps;   // a folder; empty: none
};

struct RenderOptions {
  engine::EngineOptions engine;
  engine::ModelOptions model;
  std::vector<RenderFiles> renders;  // at least one; they run in this order
  bool is_quiet = false;
};

// Whether this build can write such a file; else why not.
absl::Status CheckOutputName(const std::string& out);

// Errors and progress go to standard error. Every request is read before the weights are. One that
// cannot be used or fails does not keep the others from running; the code is the first failure's.
// After an interrupt or the loss of the device no further one is begun.
ExitCode Render(const RenderOptions& options, const engine::CancelToken& cancel);

}  // namespace kino::render
