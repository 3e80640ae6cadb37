#include "server/command_line/address.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace kino::command_line {

bool IsLoopbackHost(const std::string& host) {
  if (absl::EqualsIgnoreCase(host, "localhost") || host == "[::1]" || host == "::1") return true;
  const std::vector<std::string> parts = absl::StrSplit(host, '.');
  if (parts.size() != 4 || parts[0] != "127") return false;
  for (const std::string& part : parts) {
    int value = -1;
    if (!std::all_of(part.begin(), part.end(), absl::ascii_isdigit) ||
        !absl::SimpleAtoi(part, &value) || value > 255) {
      return false;
    }
  }
  return true;
}

bool IsLocalTarget(const std::string& target) {
  absl::string_view rest = target;
  if (absl::ConsumePrefix(&rest, "unix:") || absl::ConsumePrefix(&rest, "unix-abstract:")) {
    return true;
  }
  for (const absl::string_view scheme : {"dns:", "ipv4:", "ipv6:"}) {
    if (!absl::ConsumePrefix(&rest, scheme)) continue;
    // "dns://authority/host": the authority is a name server.
    if (absl::ConsumePrefix(&rest, "//")) rest.remove_prefix(std::min(rest.find('/'), rest.size()));
    absl::ConsumePrefix(&rest, "/");
    break;
  }
  // With more colons than one and no brackets, all of it is an IPv6 address.
  const size_t colon = rest.rfind(':');
  const bool has_port = colon != absl::string_view::npos &&
                        (rest.find(':') == colon || (colon > 0 && rest[colon - 1] == ']'));
  return IsLoopbackHost(std::string(has_port ? rest.substr(0, colon) : rest));
}

}  // namespace kino::command_line
