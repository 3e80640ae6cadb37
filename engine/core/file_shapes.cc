#include "engine/core/file_shapes.h"

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

std::vector<MappedTensor> SplitRows(const TensorEntry& entry, int64_t rows,
                                    const std::vector<std::string>& names) {
  const int64_t all = entry.shape.empty() ? 0 : entry.shape[0];
  std::vector<MappedTensor> mapped;
  for (const std::string& name : names) {
    const int64_t first = static_cast<int64_t>(mapped.size()) * rows;
    const bool is_last = mapped.size() + 1 == names.size();
    mapped.push_back({.name = name, .first_row = first, .rows = is_last ? all - first : rows});
  }
  return mapped;
}

int IntegerOr(const nlohmann::json& config, const char* key, int fallback) {
  const auto found = config.find(key);
  return found != config.end() && found->is_number_integer() ? found->get<int>() : fallback;
}

}  // namespace kino::engine
