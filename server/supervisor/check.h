// `kinod --check-config`: what a configuration means, and whether its models can be described. Free
// function.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "server/config/config.h"

namespace kino::supervisor {

// A summary for people. FAILED_PRECONDITION lists every model that cannot run and why.
absl::StatusOr<std::string> CheckConfig(const config::Config& config);

}  // namespace kino::supervisor
