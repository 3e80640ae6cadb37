// The weights of one component as published: a safetensors file, or shards with their index.json,
// by tensor name. Immutable after Open, thread-safe; tensor bytes live as long as the Checkpoint.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/core/safetensors.h"

namespace kino::engine {

class Checkpoint {
 public:
  // `folder` is a component's (".../transformer"). Looks for the names diffusers and transformers
  // give, with `variant`
  // ("fp16", "bf16" or empty) before ".safetensors". NOT_FOUND lists what was looked for; a folder
  // that holds only pickled weights is told so. INVALID_ARGUMENT: a malformed file, or an index
  // that disagrees with its shards.
  static absl::StatusOr<std::shared_ptr<const Checkpoint>> Open(const std::string& folder,
                                                                const std::string& variant);

  // Nullptr when there is none.
  const TensorEntry* Find(std::string_view name) const;
  const std::map<std::string, const TensorEntry*, std::less<>>& tensors() const { return tensors_; }
  const std::string& folder() const { return folder_; }
  int64_t bytes() const { return bytes_; }
  // Names and sizes of the files with their change times: equal for equal files. Keys shared
  // components.
  const std::string& identity() const { return identity_; }

 private:
  std::string folder_;
  std::string identity_;
  int64_t bytes_ = 0;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, const TensorEntry*, std::less<>> tensors_;
};

}  // namespace kino::engine
