// `kino-render plan`: what a request would need, plan by plan, without running anything. One
// thread.
#pragma once

#include <string>
#include <vector>

#include "server/render/render.h"

namespace kino::render {

// `arguments` without "plan". The table goes to standard output. kBadRequest also when the request
// fits nowhere.
ExitCode PlanCommand(const std::vector<std::string>& arguments);

}  // namespace kino::render
