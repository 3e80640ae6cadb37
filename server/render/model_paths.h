// What --model names: a folder in diffusers' layout, and perhaps files that take the place of its
// components. Free function.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/describe/describe.h"

namespace kino::render {

struct ModelPaths {
  std::string folder;
  engine::OriginalFiles original_files;
};

// `paths` are a folder, files (.gguf or .safetensors), or both in any order. A file is a
// transformer, or COMPONENT=FILE says what it is. Without a folder the first file's is taken, or
// the one above it, where model_index.json is. INVALID_ARGUMENT: anything else; NOT_FOUND: no such
// file or folder.
absl::StatusOr<ModelPaths> FindModel(const std::vector<std::string>& paths);

}  // namespace kino::render
