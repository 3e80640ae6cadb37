// What a program reads, by the name that stands on its command line. Free functions.
//
// A name may lead to a pipe ("/dev/fd/63" of the shell's <(...), "-" for standard input), which can
// be read once: it is opened once, and what is needed twice is kept.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace kino::command_line {

// The whole of it. The message names what cannot be read, or is empty or larger than any request.
absl::StatusOr<std::string> ReadInputText(const std::string& name);

// A descriptor that can be read from any offset, with all there is behind it: the file itself, or a
// temporary one without a name that holds what came out of the pipe. The receiver closes it. The
// message names what cannot be read, or is larger than `max_bytes` and no file.
absl::StatusOr<int> OpenInputFile(const std::string& name, int64_t max_bytes);

}  // namespace kino::command_line
