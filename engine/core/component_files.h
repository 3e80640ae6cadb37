// What a component of a model is made of: its config and its weights, out of a folder in diffusers'
// layout or out of an original file (a single safetensors file, GGUF). Values; no torch.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/core/checkpoint.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

// A component as an original file holds it.
struct FoundComponent {
  KeyMap map;             // to the names that the component's layers look up
  nlohmann::json config;  // as its config.json would say
};

// How a family finds its component in an original file. `folder_config`: of the component whose
// place the file takes, without what it says of its own files, or nullptr. NOT_FOUND: the file
// holds no such component; other errors say what is wrong with it. nullptr: the family knows no
// original files.
using FindComponent = absl::StatusOr<FoundComponent> (*)(const TensorFile& file,
                                                         const nlohmann::json* folder_config);

// A component in a file of its own whose names are a folder's already (FramePack's in float8): as
// it is, with the folder's config. INVALID_ARGUMENT: there is none.
absl::StatusOr<FoundComponent> FoundUnderFolderNames(const TensorFile& file,
                                                     const std::string& component,
                                                     const nlohmann::json* folder_config);

// Original files (GGUF, single-file safetensors) in place of a folder's components, by these.
using OriginalFiles = std::map<std::string, std::string>;

struct ComponentFiles {
  nlohmann::json config;                         // config.json
  std::string config_path;                       // names it in messages
  std::shared_ptr<const Checkpoint> checkpoint;  // under diffusers' names

  // Of a folder in diffusers' layout. Errors are those of ReadJsonFile and Checkpoint::Open.
  static absl::StatusOr<ComponentFiles> Open(const std::string& folder, const std::string& variant);
  // Of the component `name` of a model's folder, or of the original file in its place.
  static absl::StatusOr<ComponentFiles> OpenComponent(const std::string& model_folder,
                                                      const std::string& name,
                                                      const std::string& variant,
                                                      const OriginalFiles& originals,
                                                      FindComponent find);
  // Of an original file that takes the place of the component in `folder`, which need not exist.
  // Errors are those of ReadJsonFile, TensorFile::Open, `find` and Checkpoint::FromFile.
  // UNIMPLEMENTED: there is no `find`.
  static absl::StatusOr<ComponentFiles> OpenOriginal(const std::string& path,
                                                     const std::string& folder, FindComponent find);
};

}  // namespace kino::engine
