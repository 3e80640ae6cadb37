// Where the engine writes what a person should know: a callback the process sets once at start
// (spdlog in the worker, stderr in kino-render). Thread-safe. Never a prompt.
#pragma once

#include <functional>
#include <string_view>

namespace kino::engine {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
using LogSink = std::function<void(LogLevel, std::string_view)>;

// REQUIRES: called before other threads log. The default sink writes warnings and errors to stderr.
void SetLogSink(LogSink sink);
void Log(LogLevel level, std::string_view message);

}  // namespace kino::engine
