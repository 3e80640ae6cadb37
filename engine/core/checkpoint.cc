#include "engine/core/checkpoint.h"

#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/core/json.h"
#include "engine/core/safetensors.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kIndexEnd = ".json";

// The files that a component's weights may begin with, in the order in which they are looked for:
// diffusers' models take shards with an index before a single file, transformers' the single file.
std::vector<std::string> WeightNames(const std::string& variant) {
  constexpr char kDiffusers[] = "diffusion_pytorch_model", kTransformers[] = "model";
  const std::string middle = variant.empty() ? "" : "." + variant;
  const auto single = [&](const char* base) { return absl::StrCat(base, middle, ".safetensors"); };
  const auto index = [&](const char* base) {
    return absl::StrCat(base, ".safetensors.index", middle, ".json");
  };
  std::vector<std::string> names = {index(kDiffusers), single(kDiffusers), single(kTransformers),
                                    index(kTransformers)};
  // As diffusers once wrote the index of a variant.
  if (!variant.empty()) {
    names.insert(names.begin() + 1,
                 absl::StrCat(kDiffusers, ".safetensors", middle, ".index.json"));
  }
  return names;
}

// Whether there is such a name, be it of a link that leads nowhere.
bool IsThere(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

// The first of the variant's names in the folder, or nothing; appends them to `looked_for`.
std::string FindWeights(const std::string& folder, const std::string& variant,
                        std::vector<std::string>& looked_for) {
  for (std::string& name : WeightNames(variant)) {
    looked_for.push_back(name);
    if (IsThere(fs::path(folder) / name)) return name;
  }
  return "";
}

// What a folder without weights has in their place.
std::string HintAt(const std::string& folder) {
  std::set<std::string> variants;
  bool is_pickled = false;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename();
    const std::string extension = entry.path().extension();
    is_pickled = is_pickled || extension == ".bin" || extension == ".pt";
    // NAME.VARIANT.safetensors, NAME.VARIANT-00001-of-00002.safetensors
    std::vector<std::string> parts = absl::StrSplit(name, '.');
    if (parts.size() == 3 && extension == ".safetensors")
      variants.insert(parts[1].substr(0, parts[1].find('-')));
  }
  if (!variants.empty()) {
    return absl::StrCat("; it holds weights of variant ", absl::StrJoin(variants, " and of "),
                        ": set the model's variant to read them");
  }
  return is_pickled ? "; it holds pickled weights, which Kino never reads: convert them to "
                      "safetensors"
                    : "";
}

// NOT_FOUND when `path` is a link that leads nowhere.
absl::Status CheckTarget(const fs::path& path) {
  std::error_code error;
  if (!fs::is_symlink(fs::symlink_status(path, error)) || fs::exists(path, error))
    return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat(
      "'", path.string(), "' is a link to a file that does not exist: download it again"));
}

// Every file that the index names must be there.
absl::Status CheckShards(const std::string& index_path, const std::set<std::string>& files) {
  constexpr size_t kNamed = 5;
  std::vector<std::string> missing;
  for (const std::string& file : files) {
    const fs::path path = fs::path(index_path).parent_path() / file;
    KINO_RETURN_IF_ERROR(CheckTarget(path));
    if (!IsThere(path)) missing.push_back(absl::StrCat("'", file, "'"));
  }
  if (missing.empty()) return absl::OkStatus();
  const size_t more = missing.size() > kNamed ? missing.size() - kNamed : 0;
  missing.resize(missing.size() - more);
  return absl::NotFoundError(absl::StrCat(
      "'", index_path, "' names ", files.size(), " files, and of them ",
      absl::StrJoin(missing, ", "), more > 0 ? absl::StrCat(" and ", more, " more") : "",
      missing.size() == 1 ? " is" : " are", " not beside it; download what is missing"));
}

// Tensor to file, as the index says.
using WeightMap = std::map<std::string, std::string>;

absl::StatusOr<WeightMap> ReadWeightMap(const std::string& index_path) {
  KINO_ASSIGN_OR_RETURN(const nlohmann::json index, ReadJsonFile(index_path));
  if (!index.contains("weight_map") || !index["weight_map"].is_object()) {
    return absl::InvalidArgumentError(absl::StrCat("'", index_path, "': no weight_map"));
  }
  WeightMap map;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    // The index names files of its own folder; anything else would be a way out of it.
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (name.empty() || name.find('/') != std::string::npos ||
        !absl::EndsWith(name, ".safetensors")) {
      return absl::InvalidArgumentError(absl::StrCat("'", index_path, "': tensor '", tensor,
                                                     "' is in '", name,
                                                     "', expected a .safetensors file"));
    }
    map[tensor] = name;
  }
  return map;
}

// Every tensor the index names must be in the shard it names.
absl::Status CheckIndex(const std::string& index_path, const WeightMap& map,
                        const std::map<std::string, const TensorEntry*, std::less<>>& tensors) {
  for (const auto& [tensor, file] : map) {
    const auto it = tensors.find(tensor);
    if (it == tensors.end() || fs::path(it->second->file).filename() != file) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", index_path, "': tensor '", tensor, "' is not in '", file, "'"));
    }
  }
  return absl::OkStatus();
}

// The rows of `stored` that `mapped` asks for.
absl::StatusOr<TensorEntry> RowsOf(const TensorEntry& stored, const std::string& original,
                                   const MappedTensor& mapped) {
  if (mapped.first_row == 0 && !mapped.rows) return stored;
  const auto error = [&](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat("'", stored.file, "': tensor '", original,
                                                   "', as '", mapped.name, "': ", what));
  };
  // Blocks run along the last dimension: a tensor of one dimension has no rows of them.
  const size_t least = stored.block == GgmlType::kNone ? 1 : 2;
  if (stored.shape.size() < least) {
    return error(absl::StrCat(stored.shape.size(), " dimensions, expected at least ", least,
                              " to take rows of"));
  }
  const int64_t all = stored.shape[0];
  const int64_t rows = mapped.rows.value_or(all - mapped.first_row);
  if (mapped.first_row < 0 || rows < 0 || mapped.first_row > all || rows > all - mapped.first_row) {
    return error(absl::StrCat("rows [", mapped.first_row, ", ", mapped.first_row, " + ", rows,
                              ") of [", absl::StrJoin(stored.shape, ", "), "]"));
  }
  TensorEntry entry = stored;
  const int64_t row_bytes = all == 0 ? 0 : stored.bytes / all;
  entry.shape[0] = rows;
  entry.data += mapped.first_row * row_bytes;
  entry.bytes = rows * row_bytes;
  return entry;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Checkpoint>> Checkpoint::OpenFile(const std::string& path,
                                                                       const KeyMap& map) {
  KINO_ASSIGN_OR_RETURN(std::shared_ptr<const TensorFile> file, TensorFile::Open(path));
  return FromFile(std::move(file), map);
}

absl::StatusOr<std::shared_ptr<const Checkpoint>> Checkpoint::FromFile(
    std::shared_ptr<const TensorFile> file, const KeyMap& map) {
  auto checkpoint = std::make_shared<Checkpoint>();
  checkpoint->folder_ = file->path();
  checkpoint->identity_ = absl::StrCat(file->identity(), map.name, ";");
  std::map<std::string, std::string> originals;  // by mapped name
  for (const auto& [original, stored] : file->tensors()) {
    for (const MappedTensor& mapped : map.map(original, stored)) {
      const auto [other, is_new] = originals.emplace(mapped.name, original);
      if (!is_new) {
        return absl::InvalidArgumentError(
            absl::StrCat("'", file->path(), "': tensors '", other->second, "' and '", original,
                         "' are both '", mapped.name, "' (", map.name, ")"));
      }
      KINO_ASSIGN_OR_RETURN(TensorEntry entry, RowsOf(stored, original, mapped));
      checkpoint->bytes_ += entry.bytes;
      checkpoint->mapped_.push_back(std::make_unique<const TensorEntry>(std::move(entry)));
      checkpoint->tensors_.emplace(mapped.name, checkpoint->mapped_.back().get());
    }
  }
  if (checkpoint->tensors_.empty()) {
    return absl::NotFoundError(
        absl::StrCat("'", file->path(), "' holds no tensor of the ", map.name));
  }
  checkpoint->files_.push_back(std::move(file));
  return checkpoint;
}

absl::StatusOr<std::shared_ptr<const Checkpoint>> Checkpoint::Open(const std::string& folder,
                                                                   const std::string& variant) {
  auto checkpoint = std::make_shared<Checkpoint>();
  checkpoint->folder_ = folder;
  std::vector<std::string> looked_for;
  std::string found = FindWeights(folder, variant, looked_for);
  if (!found.empty()) {
    checkpoint->variant_ = variant;
  } else if (!variant.empty()) {
    found = FindWeights(folder, "", looked_for);
  }
  if (found.empty()) {
    return absl::NotFoundError(absl::StrCat("no weights in '", folder, "': looked for ",
                                            absl::StrJoin(looked_for, ", "), HintAt(folder)));
  }
  const std::string path = (fs::path(folder) / found).string();
  KINO_RETURN_IF_ERROR(CheckTarget(path));
  std::set<std::string> files;
  WeightMap weight_map;
  const bool is_index = found.ends_with(kIndexEnd);
  if (is_index) {
    KINO_ASSIGN_OR_RETURN(weight_map, ReadWeightMap(path));
    for (const auto& [tensor, file] : weight_map) files.insert(file);
    KINO_RETURN_IF_ERROR(CheckShards(path, files));
  } else {
    files = {found};
  }
  for (const std::string& name : files) {
    const std::string file_path = (fs::path(folder) / name).string();
    KINO_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> file, SafetensorsFile::Open(file_path));
    for (const auto& [tensor, entry] : file->tensors()) {
      if (!checkpoint->tensors_.emplace(tensor, &entry).second) {
        return absl::InvalidArgumentError(absl::StrCat("tensor '", tensor, "' is in '", file_path,
                                                       "' and in '", checkpoint->Find(tensor)->file,
                                                       "'"));
      }
      checkpoint->bytes_ += entry.bytes;
    }
    checkpoint->identity_ += file->identity();
    checkpoint->files_.push_back(std::move(file));
  }
  if (is_index) KINO_RETURN_IF_ERROR(CheckIndex(path, weight_map, checkpoint->tensors_));
  return checkpoint;
}

std::vector<std::string> Checkpoint::paths() const {
  std::vector<std::string> paths;
  for (const std::shared_ptr<const TensorFile>& file : files_) paths.push_back(file->path());
  return paths;
}

const TensorEntry* Checkpoint::Find(std::string_view name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : it->second;
}

}  // namespace kino::engine
