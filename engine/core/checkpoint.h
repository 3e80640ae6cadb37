// The weights of one component by tensor name: a component's folder (a safetensors file, or shards
// with their index.json), or its part of an original single file (safetensors or GGUF) through a
// family's key map. Immutable after Open, thread-safe; tensor bytes live as long as the Checkpoint.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/core/tensor_file.h"

namespace kino::engine {

// A stored tensor, or some of its rows, under the name that a model's layers look up.
struct MappedTensor {
  std::string name;
  // Along dimension 0, as fused projections are split; all of them where `rows` is absent. Rows of
  // blocks stay as they are stored.
  int64_t first_row = 0;
  std::optional<int64_t> rows = std::nullopt;
};

// From the names of an original file to those of one component.
struct KeyMap {
  std::string name;  // "ltx transformer"; in messages and in the checkpoint's identity
  // What becomes of a tensor: nothing when it is another component's or unused. Pure.
  std::function<std::vector<MappedTensor>(std::string_view original, const TensorEntry& entry)> map;
};

class Checkpoint {
 public:
  // `folder` is a component's (".../transformer"). Looks for the names diffusers and transformers
  // give, with `variant` ("fp16", say, or empty) before ".safetensors", and as diffusers does, for
  // those without where the component has none of the variant. NOT_FOUND lists what was looked for,
  // and tells of pickled weights and other variants in the folder, or names the file that an index
  // or a link leads to in vain. INVALID_ARGUMENT: a malformed file, or an index that disagrees with
  // its shards.
  static absl::StatusOr<std::shared_ptr<const Checkpoint>> Open(const std::string& folder,
                                                                const std::string& variant);
  // Of an original file. INVALID_ARGUMENT: a malformed file, two tensors of one name after mapping,
  // or rows that a tensor does not have; NOT_FOUND: the map finds nothing of its own in the file.
  static absl::StatusOr<std::shared_ptr<const Checkpoint>> OpenFile(const std::string& path,
                                                                    const KeyMap& map);
  // The same of a file that is open already, which the Checkpoint then shares.
  static absl::StatusOr<std::shared_ptr<const Checkpoint>> FromFile(
      std::shared_ptr<const TensorFile> file, const KeyMap& map);

  // Nullptr when there is none.
  const TensorEntry* Find(std::string_view name) const;
  const std::map<std::string, const TensorEntry*, std::less<>>& tensors() const { return tensors_; }
  // Of the files that were found: as asked for, or empty.
  const std::string& variant() const { return variant_; }
  // The component's folder, or the single file.
  const std::string& folder() const { return folder_; }
  int64_t bytes() const { return bytes_; }
  // Of the files, in no particular order.
  std::vector<std::string> paths() const;
  // Names and sizes of the files with their change times: equal for equal files. Keys shared
  // components.
  const std::string& identity() const { return identity_; }

 private:
  std::string folder_;
  std::string variant_;
  std::string identity_;
  int64_t bytes_ = 0;
  std::vector<std::shared_ptr<const TensorFile>> files_;
  std::vector<std::unique_ptr<const TensorEntry>> mapped_;  // of a key map
  std::map<std::string, const TensorEntry*, std::less<>> tensors_;
};

}  // namespace kino::engine
