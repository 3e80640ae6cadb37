// The families describe knows: one line each in engine/models/describers.cc, which is above
// describe and needs no torch.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/core/component_files.h"
#include "engine/describe/describe.h"

namespace kino::engine {

// What is to be described.
struct ModelSource {
  std::string folder;
  std::string pipeline_class;
  // The transformer's config: the folder's, or that of the original file in its place.
  nlohmann::json transformer_config;
  std::string transformer_config_path;
};

struct FamilyDescriber {
  std::string family;
  // The pipeline classes of model_index.json that this family runs.
  std::vector<std::string> pipeline_classes;
  // Reads the component configs the family needs.
  absl::StatusOr<std::shared_ptr<const FamilyDescription>> (*describe)(const ModelSource& source);
  // Its transformer in an original file; nullptr: it is read from folders alone.
  FindComponent find_transformer;
  // Its own, of all tasks.
  std::vector<KnobInfo> knobs;
};

// Defined in engine/models/describers.cc.
const std::vector<FamilyDescriber>& FamilyDescribers();

}  // namespace kino::engine
