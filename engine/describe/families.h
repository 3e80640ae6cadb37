// The families describe knows: one line each in engine/models/describers.cc, which is above
// describe and needs no torch.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/describe/describe.h"

namespace kino::engine {

struct FamilyDescriber {
  std::string family;
  // The pipeline classes of model_index.json that this family runs.
  std::vector<std::string> pipeline_classes;
  // Reads the component configs the family needs.
  absl::StatusOr<std::shared_ptr<const FamilyDescription>> (*describe)(
      const std::string& folder, const std::string& pipeline_class);
};

// Defined in engine/models/describers.cc.
const std::vector<FamilyDescriber>& FamilyDescribers();

}  // namespace kino::engine
