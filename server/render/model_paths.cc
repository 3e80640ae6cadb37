#include "server/render/model_paths.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"

namespace kino::render {
namespace {

namespace fs = std::filesystem;

absl::StatusOr<std::string> FolderOf(const std::string& file) {
  std::error_code error;
  const fs::path own = fs::absolute(file, error).parent_path();
  for (const fs::path& folder : {own, own.parent_path()}) {
    if (fs::exists(folder / "model_index.json", error)) return folder.string();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--model: '", file,
                   "' lies in no model's folder; name the folder of the other components by a "
                   "second --model"));
}

// PATH, or COMPONENT=PATH.
std::pair<std::string, std::string> ComponentAndPath(const std::string& argument) {
  std::error_code error;
  const size_t sign = argument.find('=');
  if (sign == std::string::npos || argument.find('/') < sign || fs::exists(argument, error))
    return {"", argument};
  return {argument.substr(0, sign), argument.substr(sign + 1)};
}

}  // namespace

absl::StatusOr<ModelPaths> FindModel(const std::vector<std::string>& paths) {
  ModelPaths found;
  std::string first_file;
  for (const std::string& argument : paths) {
    const auto [component, path] = ComponentAndPath(argument);
    std::error_code error;
    const bool is_folder = fs::is_directory(path, error) && component.empty();
    if (!fs::exists(path, error))
      return absl::NotFoundError(absl::StrCat("--model: no file or folder '", path, "'"));
    const fs::path extension = fs::path(path).extension();
    if (!is_folder && extension != ".gguf" && extension != ".safetensors") {
      return absl::InvalidArgumentError(
          absl::StrCat("--model: expected a folder, FILE.gguf, FILE.safetensors or "
                       "COMPONENT=FILE, got '",
                       argument, "'"));
    }
    const std::string name = component.empty() ? "transformer" : component;
    std::string& one = is_folder ? found.folder : found.original_files[name];
    if (!one.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("--model: expected one ",
                                                     is_folder ? "folder" : name, ", got '", one,
                                                     "' and '", path, "'"));
    }
    one = path;
    if (!is_folder && first_file.empty()) first_file = path;
  }
  if (!found.folder.empty() || first_file.empty()) return found;
  auto folder = FolderOf(first_file);
  if (!folder.ok()) return folder.status();
  found.folder = *std::move(folder);
  return found;
}

}  // namespace kino::render
