// A value for each of a model's components in one text, as configs, requests and command lines
// spell it: "VALUE" for the whole model, "COMPONENT=VALUE,..." for single ones, or
// "VALUE,COMPONENT=VALUE,...". Values only, no torch; thread-safe.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kino::engine {

struct ComponentValue {
  std::string component;  // empty: the whole model
  std::string value;
};

// INVALID_ARGUMENT: another form, or two values for one component.
absl::StatusOr<std::vector<ComponentValue>> SplitComponentValues(std::string_view text);

// The value of `text` for `component`; empty: none. whole_too: one for the whole model counts.
// INVALID_ARGUMENT as SplitComponentValues'.
absl::StatusOr<std::string> ValueFor(const std::optional<std::string>& text,
                                     std::string_view component, bool whole_too);

// What is wrong with `text`: its form, a component that is none of `components`, a value that
// `check` refuses. Empty: nothing.
std::vector<std::string> ProblemsOf(std::string_view text,
                                    const std::vector<std::string>& components,
                                    const std::function<absl::Status(const std::string&)>& check);

}  // namespace kino::engine
