#include "server/render/model_paths.h"

#include <filesystem>

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

}  // namespace

absl::StatusOr<ModelPaths> FindModel(const std::vector<std::string>& paths) {
  ModelPaths found;
  for (const std::string& path : paths) {
    std::error_code error;
    const bool is_folder = fs::is_directory(path, error);
    if (!is_folder && !fs::exists(path, error)) {
      return absl::NotFoundError(absl::StrCat("--model: no file or folder '", path, "'"));
    }
    const fs::path extension = fs::path(path).extension();
    if (!is_folder && extension != ".gguf" && extension != ".safetensors") {
      return absl::InvalidArgumentError(absl::StrCat(
          "--model: expected a folder, FILE.gguf or FILE.safetensors, got '", path, "'"));
    }
    std::string& one = is_folder ? found.folder : found.transformer_file;
    if (!one.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("--model: expected one ",
                                                     is_folder ? "folder" : "file", ", got '", one,
                                                     "' and '", path, "'"));
    }
    one = path;
  }
  if (!found.folder.empty() || found.transformer_file.empty()) return found;
  auto folder = FolderOf(found.transformer_file);
  if (!folder.ok()) return folder.status();
  found.folder = *std::move(folder);
  return found;
}

}  // namespace kino::render
