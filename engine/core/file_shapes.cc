#include "engine/core/file_shapes.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace kino::engine {

FileShapes::FileShapes(const TensorFile& file, const KeyMap& map)
    : path_(file.path()), component_(map.name) {
  for (const auto& [original, entry] : file.tensors()) {
    for (const MappedTensor& mapped : map.map(original, entry)) {
      std::vector<int64_t> shape = entry.shape;
      if (mapped.rows && !shape.empty()) shape[0] = *mapped.rows;
      shapes_.emplace(mapped.name, std::move(shape));
    }
  }
}

bool FileShapes::HasPrefix(const std::string& prefix) const {
  const auto from = shapes_.lower_bound(prefix);
  return from != shapes_.end() && absl::StartsWith(from->first, prefix);
}

int FileShapes::Count(const std::string& prefix) const {
  int count = 0;
  while (HasPrefix(absl::StrCat(prefix, count, "."))) ++count;
  return count;
}

int64_t FileShapes::Extent(const std::string& name, size_t dimension) {
  const auto found = shapes_.find(name);
  if (found == shapes_.end()) {
    Fail(absl::StrCat("no tensor '", name, "'"));
    return 1;
  }
  if (dimension >= found->second.size() || found->second[dimension] < 1) {
    Fail(absl::StrCat("tensor '", name, "' has shape [", absl::StrJoin(found->second, ", "),
                      "], expected a dimension ", dimension));
    return 1;
  }
  return found->second[dimension];
}

void FileShapes::Fail(const std::string& what) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(absl::StrCat("'", path_, "' (", component_, "): ", what));
}

std::optional<std::string> PrefixOf(const TensorFile& file,
                                    const std::vector<std::string_view>& names) {
  for (const auto& [name, entry] : file.tensors()) {
    if (!name.ends_with(names.front())) continue;
    std::string prefix = name.substr(0, name.size() - names.front().size());
    const auto is_there = [&](std::string_view each) {
      return file.tensors().contains(absl::StrCat(prefix, std::string(each)));
    };
    if (std::all_of(names.begin(), names.end(), is_there)) return prefix;
  }
  return std::nullopt;
}

std::string Rename(std::string_view name, const KeyRenames& renames) {
  std::string text(name);
  for (const auto& [from, to] : renames) {
    for (size_t at = text.find(from); at != std::string::npos;
         at = text.find(from, at + to.size())) {
      text.replace(at, from.size(), to);
    }
  }
  return text;
}

std::vector<MappedTensor> SplitFused(std::string name, const TensorEntry& entry,
                                     std::optional<int64_t> rows,
                                     const std::vector<FusedLayer>& layers) {
  for (const FusedLayer& layer : layers) {
    const size_t at = name.find(layer.name);
    if (at == std::string::npos) continue;
    const std::string leaf = name.substr(at + layer.name.size());
    // The scales of a quantized layer are not rows of it.
    if (leaf != "weight" && leaf != "bias") continue;
    const auto parts = static_cast<int64_t>(layer.parts.size());
    const int64_t all = entry.shape.empty() ? 0 : entry.shape[0];
    const int64_t each = rows.value_or(all / parts);
    std::vector<MappedTensor> mapped;
    for (int64_t i = 0; i < parts; ++i) {
      mapped.push_back({.name = absl::StrCat(name.substr(0, at), std::string(layer.parts[i]), leaf),
                        .first_row = i * each,
                        .rows = i + 1 == parts ? all - i * each : each});
    }
    return mapped;
  }
  return {{.name = std::move(name)}};
}

int IntegerOr(const nlohmann::json& config, const char* key, int fallback) {
  const auto found = config.find(key);
  return found != config.end() && found->is_number_integer() ? found->get<int>() : fallback;
}

}  // namespace kino::engine
