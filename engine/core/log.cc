#include "engine/core/log.h"

#include <cstdio>
#include <utility>

namespace kino::engine {
namespace {

LogSink& Sink() {
  static LogSink sink = [](LogLevel level, std::string_view message) {
    if (level < LogLevel::kWarning) return;
    std::fprintf(stderr, "%s: %.*s\n", level == LogLevel::kError ? "error" : "warning",
                 static_cast<int>(message.size()), message.data());
  };
  return sink;
}

}  // namespace

void SetLogSink(LogSink sink) { Sink() = std::move(sink); }

void Log(LogLevel level, std::string_view message) { Sink()(level, message); }

}  // namespace kino::engine
