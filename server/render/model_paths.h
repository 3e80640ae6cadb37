// What --model names: a folder in diffusers' layout, and perhaps a file whose transformer takes the
// place of the folder's. Free function.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace kino::render {

struct ModelPaths {
  std::string folder;
  std::string transformer_file;  // empty: the folder's own
};

// `paths` are one or two: a folder, a file (.gguf or .safetensors), or both in either order. A file
// alone goes with the folder it lies in, or the one above, where model_index.json is.
// INVALID_ARGUMENT: anything else; NOT_FOUND: no such file or folder.
absl::StatusOr<ModelPaths> FindModel(const std::vector<std::string>& paths);

}  // namespace kino::render
