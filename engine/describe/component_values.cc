#include "engine/describe/component_values.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/core/status.h"

namespace kino::engine {

absl::StatusOr<std::vector<ComponentValue>> SplitComponentValues(std::string_view text) {
  const std::string whole(text);
  std::vector<ComponentValue> values;
  for (const auto piece : absl::StrSplit(whole, ',')) {
    const std::vector<std::string> sides = absl::StrSplit(piece, absl::MaxSplits('=', 1));
    ComponentValue one =
        sides.size() == 2 ? ComponentValue{sides[0], sides[1]} : ComponentValue{"", sides[0]};
    if (one.value.empty() || (sides.size() == 2 && one.component.empty())) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", whole, "', expected VALUE or COMPONENT=VALUE, separated by commas"));
    }
    for (const ComponentValue& earlier : values) {
      if (earlier.component == one.component) {
        return absl::InvalidArgumentError(absl::StrCat(
            "'", whole, "' names ",
            one.component.empty() ? "the whole model" : "'" + one.component + "'", " twice"));
      }
    }
    values.push_back(std::move(one));
  }
  return values;
}

absl::StatusOr<std::string> ValueFor(const std::optional<std::string>& text,
                                     std::string_view component, bool whole_too) {
  if (!text) return std::string();
  KINO_ASSIGN_OR_RETURN(const std::vector<ComponentValue> values, SplitComponentValues(*text));
  std::string whole;
  for (const ComponentValue& one : values) {
    if (one.component == component) return one.value;
    if (one.component.empty()) whole = one.value;
  }
  return whole_too ? whole : std::string();
}

std::vector<std::string> ProblemsOf(std::string_view text,
                                    const std::vector<std::string>& components,
                                    const std::function<absl::Status(const std::string&)>& check) {
  const auto values = SplitComponentValues(text);
  if (!values.ok()) return {std::string(values.status().message())};
  std::vector<std::string> problems;
  for (const ComponentValue& one : *values) {
    if (!one.component.empty() &&
        std::find(components.begin(), components.end(), one.component) == components.end()) {
      problems.push_back(absl::StrCat("component '", one.component, "', expected one of ",
                                      absl::StrJoin(components, ", ")));
    }
    const absl::Status status = check(one.value);
    if (!status.ok()) problems.emplace_back(status.message());
  }
  return problems;
}

}  // namespace kino::engine
