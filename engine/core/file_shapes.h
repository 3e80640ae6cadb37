// A component in an original file: its tensors' names as its layers look them up, and its shapes by
// those names, which a config is read from that the file does not have. Values; no torch.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/core/checkpoint.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

class FileShapes {
 public:
  FileShapes(const TensorFile& file, const KeyMap& map);

  bool Has(const std::string& name) const { return shapes_.contains(name); }
  bool HasPrefix(const std::string& prefix) const;
  // How many of prefix0., prefix1., ... there are.
  int Count(const std::string& prefix) const;
  // An extent of a tensor; what is missing is kept for status(), and 1 returned.
  int64_t Extent(const std::string& name, size_t dimension);
  // INVALID_ARGUMENT with the first thing that was missing, the file and the component.
  const absl::Status& status() const { return status_; }

 private:
  void Fail(const std::string& what);

  std::string path_;
  std::string component_;
  std::map<std::string, std::vector<int64_t>> shapes_;
  absl::Status status_;
};

// What stands before all of these names in the file; absent: they are not in it.
std::optional<std::string> PrefixOf(const TensorFile& file,
                                    const std::vector<std::string_view>& names);

// Python's str.replace for each pair in turn, over the outcome of the one before: how original
// names become the names that layers look up.
using KeyRenames = std::vector<std::pair<std::string_view, std::string_view>>;
std::string Rename(std::string_view name, const KeyRenames& renames);

// A layer that is several, one behind the other along dimension 0.
struct FusedLayer {
  std::string_view name;                // a part of the layer's name, to its last dot
  std::vector<std::string_view> parts;  // what stands in its place
};
// What becomes of a tensor `name` (renamed already): where it is the weight or the bias of one of
// `layers`, `rows` rows under each part's name but the last, which has the rest; else itself.
// Without `rows` the parts are of one size. Rows that are not there are Checkpoint's to refuse.
std::vector<MappedTensor> SplitFused(std::string name, const TensorEntry& entry,
                                     std::optional<int64_t> rows,
                                     const std::vector<FusedLayer>& layers);

// config[key], if it is there and a whole number.
int IntegerOr(const nlohmann::json& config, const char* key, int fallback);

}  // namespace kino::engine
