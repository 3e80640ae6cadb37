// models[].plan: a model's memory options, with the field names of kino.v1.Plan. Free function.
#pragma once

#include "engine/describe/request.h"
#include "server/config/yaml_reader.h"

namespace kino::config {

// Reads the map under "plan". Which components a model has is not known here: values are checked,
// names are not.
void ReadPlan(MapReader& model, engine::Plan& plan);

}  // namespace kino::config
