// The families describe knows: one line each in engine/models/describers.cc, which is above
// describe and needs no torch.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/core/checkpoint.h"
#include "engine/describe/describe.h"

namespace kino::engine {

// What is to be described.
struct ModelSource {
  std::string folder;
  std::string pipeline_class;
  // An original file in place of the folder's transformer; empty: none.
  std::string transformer_file;
};

struct FamilyDescriber {
  std::string family;
  // The pipeline classes of model_index.json that this family runs.
  std::vector<std::string> pipeline_classes;
  // Reads the component configs the family needs.
  absl::StatusOr<std::shared_ptr<const FamilyDescription>> (*describe)(const ModelSource& source);
  // The weights of source.transformer_file under the names the family's layers look up.
  absl::StatusOr<std::shared_ptr<const Checkpoint>> (*open_transformer_file)(
      const ModelSource& source);
};

// Defined in engine/models/describers.cc.
const std::vector<FamilyDescriber>& FamilyDescribers();

}  // namespace kino::engine
