// Profiles of a model by tracing its real pipeline on meta tensors (core/trace.h): which weights
// each stretch of a run reads, the most it holds, what it computes. Configs and weight indices are
// read, weights are not. No torch in this header.
#pragma once

#include <memory>
#include <string>

#include "engine/describe/compute_dtypes.h"
#include "engine/describe/describe.h"
#include "engine/describe/profile.h"

namespace kino::engine {

struct TracerOptions {
  std::string family;
  std::string folder;
  std::string pipeline_class = "";    // ModelDescription's
  OriginalFiles original_files = {};  // as ModelOptions'
  std::string variant = "";
  ComputeDTypes dtype = {};  // "auto" is settled
  bool on_gpu = false;
};

// Opens the model when it is first asked, and keeps the latest profiles. On a CPU: of this
// process's, with the threads that torch has. Errors: those of loading the model, and UNIMPLEMENTED
// naming an operator that has no meta kernel (meta_kernels.cc).
std::shared_ptr<ProfileSource> MakeTracer(TracerOptions options);

}  // namespace kino::engine
