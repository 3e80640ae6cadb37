// Options for the knobs that the server says a model has (TaskInfo.knobs): a newer server's knobs
// work with an older kino. One thread.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kino/v1/models.pb.h"
#include "kino/v1/video.pb.h"
#include "server/cli/client.h"
#include "server/command_line/command_line.h"

namespace kino::cli {

// The model of this name; of an empty one, the only model there is. Errors are the server's;
// INVALID_ARGUMENT: no name, and several models.
absl::StatusOr<v1::Model> FindModel(Client& client, const std::string& name);

// A command line with knobs is parsed twice, because the server's address and the model's name
// stand on it as well: first with placeholders, then with the options that the server tells.
class KnobFlags {
 public:
  // Gives each "--name" of `arguments` that is none of the app's options a placeholder, which takes
  // one value as every knob does, and writes its underscores as dashes.
  void AddPlaceholders(CLI::App& app, std::vector<std::string>* arguments);
  bool has_placeholders() const { return !placeholders_.empty(); }
  // Puts the model's knobs in the placeholders' stead, with their ranges and defaults in --help.
  // `this` outlives the second parsing. INVALID_ARGUMENT: a placeholder is none of them.
  absl::Status Register(CLI::App& app, const v1::Model& model);
  // Puts the values into `request`, as fields of the family's message, or by name where this
  // kino's has no field that holds the value: the server then says what is wrong with it.
  void Apply(v1::GenerateRequest* request) const;

 private:
  std::vector<std::string> placeholders_;  // with their dashes
  std::string family_;
  std::map<std::string, v1::KnobValue> values_;  // by the knob's name
};

}  // namespace kino::cli
