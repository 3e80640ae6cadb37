#include "engine/memory/component.h"

#include <c10/core/ScalarType.h>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"

namespace kino::engine {

absl::StatusOr<ComponentFiles> ComponentFiles::Open(const std::string& folder,
                                                    const std::string& variant) {
  ComponentFiles files;
  files.config_path = folder + "/config.json";
  KINO_ASSIGN_OR_RETURN(files.config, ReadJsonFile(files.config_path));
  KINO_ASSIGN_OR_RETURN(files.checkpoint, Checkpoint::Open(folder, variant));
  return files;
}

std::string Component::identity() const {
  return absl::StrCat(weights_->checkpoint().identity(), "|", c10::toString(weights_->dtype()), "|",
                      residency_->plan().FormatKey());
}

}  // namespace kino::engine
