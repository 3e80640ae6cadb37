// Where a program's result goes, by the name that stands on its command line. Free functions.
//
// A result becomes a file only when it is whole: it is written to FILE.part, which is renamed. That
// would put a file in the place of a device, a pipe or a link, so it is for regular files alone:
// pipes and character devices are written into, and a link stays and what it leads to is replaced.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kino::command_line {

struct OutputTarget {
  // A regular file, or one that is yet to be: with its links resolved. Empty: a stream.
  std::string file;
  // A stream's descriptor, the receiver's to close: a pipe, a character device, or an open
  // descriptor of this process such as /dev/stdout. -1 for a file.
  int fd = -1;
  // The stream is standard output: nothing else may be printed there.
  bool is_stdout = false;
};

// "-" is standard output. A pipe without a reader is waited for, as the shell does.
// INVALID_ARGUMENT: a folder, a socket or a block device, by its name; or the system's error.
absl::StatusOr<OutputTarget> OpenOutputTarget(const std::string& name);

// Whether OpenOutputTarget would give a stream, or what it would refuse; opens nothing.
absl::StatusOr<bool> IsOutputStream(const std::string& name);

// Opens `part` for writing from its beginning, if it is a regular file or absent.
absl::StatusOr<int> OpenPartFile(const std::string& part);

// All of it, whatever the descriptor takes at a time; `name` is for the message. CANCELLED: a pipe
// takes nothing more just now, and `give_up`, which is asked while it is waited for, says so.
absl::Status WriteAll(int fd, const void* data, size_t size, const std::string& name,
                      const std::function<bool()>& give_up = nullptr);

}  // namespace kino::command_line
