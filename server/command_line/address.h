// Which addresses are this machine's own. Free functions.
#pragma once

#include <string>

namespace kino::command_line {

// The whole of 127.0.0.0/8, [::1] (with or without brackets) and localhost.
bool IsLoopbackHost(const std::string& host);

// Whether a gRPC target ("host:port", "dns:///host:port", "ipv4:...", "unix:/path") stays on this
// machine: a socket of the file system, or a loopback host.
bool IsLocalTarget(const std::string& target);

}  // namespace kino::command_line
