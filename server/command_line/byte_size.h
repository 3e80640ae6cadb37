// Sizes in bytes as people write them, on command lines and in configuration files. Free functions.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace kino::command_line {

// What ParseByteSize takes, for messages.
inline constexpr char kByteSizeForm[] =
    "a size such as '512MiB', '5.5GiB', '8G' or a number of bytes";

// A number of bytes, or a number with KiB, MiB, GiB or TiB (1024s) or K, M, G or T, or KB, MB, GB
// or TB (1000s) behind it; only with a unit may it have a fraction. INVALID_ARGUMENT: anything
// else, a negative number, or more than 63 bits hold.
absl::StatusOr<int64_t> ParseByteSize(const std::string& text);

// "1.25 GiB", "17.0 MiB", "900 B".
std::string FormatByteSize(int64_t bytes);

}  // namespace kino::command_line
