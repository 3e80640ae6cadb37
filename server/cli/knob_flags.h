// Flags of a model's family, --name value for each knob that the server says it has
// (TaskInfo.knobs): a newer server's knobs work with an older kino. One thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kino/v1/models.pb.h"
#include "kino/v1/video.pb.h"
#include "server/cli/client.h"

namespace kino::cli {

// A flag that is none of kino's own: its name without dashes, and its value.
using KnobFlag = std::pair<std::string, std::string>;

// The model of this name; of an empty one, the only model there is. Errors are the server's;
// INVALID_ARGUMENT: no name, and several models.
absl::StatusOr<v1::Model> FindModel(Client& client, const std::string& name);

// Puts the flags into `request`, as fields of the family's message, or by name where this
// kino's has no field that holds the value: the server then says what is wrong with it. Repeated
// lists are joined. INVALID_ARGUMENT names the flag: none of the model's, or a value of another
// type.
absl::Status ApplyKnobs(const v1::Model& model, const std::vector<KnobFlag>& flags,
                        v1::GenerateRequest* request);

// What --help says of them: the name, what it is for, its range and default. Empty: there are none.
std::string KnobHelp(const v1::Model& model);

}  // namespace kino::cli
