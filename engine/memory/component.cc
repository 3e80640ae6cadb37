#include "engine/memory/component.h"

#include <c10/core/ScalarType.h>

#include "absl/strings/str_cat.h"

namespace kino::engine {

std::string Component::identity() const {
  return absl::StrCat(weights_->checkpoint().identity(), "|", c10::toString(weights_->dtype()), "|",
                      residency_->plan().FormatKey());
}

}  // namespace kino::engine
