#include "engine/core/component_files.h"

#include <filesystem>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {

absl::StatusOr<FoundComponent> FoundUnderFolderNames(const TensorFile& file,
                                                     const std::string& component,
                                                     const nlohmann::json* folder_config) {
  if (folder_config == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", file.path(), "' holds a ", component,
                     " under diffusers' names, which its shapes alone do not tell everything of; "
                     "expected the config.json of such a component in the model's folder"));
  }
  return FoundComponent{.map = {.name = component,
                                .map =
                                    [](std::string_view name, const TensorEntry&) {
                                      return std::vector<MappedTensor>{{.name = std::string(name)}};
                                    }},
                        .config = *folder_config};
}

absl::StatusOr<ComponentFiles> ComponentFiles::Open(const std::string& folder,
                                                    const std::string& variant) {
  ComponentFiles files;
  files.config_path = folder + "/config.json";
  KINO_ASSIGN_OR_RETURN(files.config, ReadJsonFile(files.config_path));
  KINO_ASSIGN_OR_RETURN(files.checkpoint, Checkpoint::Open(folder, variant));
  return files;
}

absl::StatusOr<ComponentFiles> ComponentFiles::OpenComponent(const std::string& model_folder,
                                                             const std::string& name,
                                                             const std::string& variant,
                                                             const OriginalFiles& originals,
                                                             FindComponent find) {
  const std::string folder = absl::StrCat(model_folder, "/", name);
  const auto original = originals.find(name);
  if (original == originals.end()) return Open(folder, variant);
  return OpenOriginal(original->second, folder, find);
}

absl::StatusOr<ComponentFiles> ComponentFiles::OpenOriginal(const std::string& path,
                                                            const std::string& folder,
                                                            FindComponent find) {
  if (find == nullptr) {
    return absl::UnimplementedError(absl::StrCat(
        "'", path, "': this component is read from a folder in diffusers' layout only"));
  }
  nlohmann::json folder_config;
  const std::string config_path = folder + "/config.json";
  if (std::filesystem::exists(config_path)) {
    KINO_ASSIGN_OR_RETURN(folder_config, ReadJsonFile(config_path));
    // It is about the folder's own files.
    folder_config.erase("quantization_config");
  }
  KINO_ASSIGN_OR_RETURN(const std::shared_ptr<const TensorFile> file, TensorFile::Open(path));
  KINO_ASSIGN_OR_RETURN(FoundComponent found,
                        find(*file, folder_config.is_null() ? nullptr : &folder_config));
  ComponentFiles files{.config = std::move(found.config), .config_path = path, .checkpoint = {}};
  KINO_ASSIGN_OR_RETURN(files.checkpoint, Checkpoint::FromFile(file, found.map));
  return files;
}

}  // namespace kino::engine
