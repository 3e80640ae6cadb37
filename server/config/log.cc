#include "server/config/log.h"

#include <spdlog/formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "server/command_line/utf8.h"

namespace kino::config {
namespace {

const char* LevelName(spdlog::level::level_enum level) {
  switch (level) {
    case spdlog::level::debug:
    case spdlog::level::trace:
      return "debug";
    case spdlog::level::info:
      return "info";
    case spdlog::level::warn:
      return "warning";
    default:
      return "error";
  }
}

class LineFormatter final : public spdlog::formatter {
 public:
  using MakeLine = std::string (*)(const LogLine& line);

  LineFormatter(MakeLine make_line, std::string process)
      : make_line_(make_line), process_(std::move(process)) {}

  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    const std::string line =
        make_line_({.time = absl::FromChrono(message.time),
                    .level = LevelName(message.level),
                    .process = process_,
                    .message = {message.payload.data(), message.payload.size()}});
    out.append(line.data(), line.data() + line.size());
  }

  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<LineFormatter>(make_line_, process_);
  }

 private:
  const MakeLine make_line_;
  const std::string process_;
};

// Each control character (of ASCII and of Latin-1) through `escape`, the rest as it is.
template <typename Escape>
std::string EscapeControls(std::string_view text, Escape escape) {
  const std::string valid = command_line::ToUtf8(text);
  std::string out;
  out.reserve(valid.size());
  for (size_t i = 0; i < valid.size(); ++i) {
    const auto byte = static_cast<unsigned char>(valid[i]);
    if (byte < 0x20 || byte == 0x7f) {
      escape(byte, out);
    } else if (byte == 0xc2 && static_cast<unsigned char>(valid[i + 1]) < 0xa0) {
      escape(static_cast<unsigned char>(valid[++i]), out);
    } else {
      out += valid[i];
    }
  }
  return out;
}

std::string JsonEscape(std::string_view text) {
  const std::string quoted = absl::StrReplaceAll(absl::string_view(text.data(), text.size()),
                                                 {{"\"", "\\\""}, {"\\", "\\\\"}});
  return EscapeControls(quoted, [](unsigned char control, std::string& out) {
    absl::StrAppendFormat(&out, "\\u%04x", control);
  });
}

}  // namespace

std::string PlainLine(const LogLine& line) {
  const std::string message =
      EscapeControls(line.message, [](unsigned char control, std::string& out) {
        absl::StrAppendFormat(&out, "\\x%02x", control);
      });
  return absl::StrCat(absl::FormatTime("%Y-%m-%d %H:%M:%E3S", line.time, absl::LocalTimeZone()),
                      " ", line.process, " ", line.level, ": ", message, "\n");
}

std::string JsonLine(const LogLine& line) {
  return absl::StrCat("{\"time\":\"",
                      absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", line.time, absl::UTCTimeZone()),
                      "\",\"level\":\"", line.level, "\",\"process\":\"", JsonEscape(line.process),
                      "\",\"message\":\"", JsonEscape(line.message), "\"}\n");
}

void SetUpLogging(const LogConfig& log, const std::string& process) {
  auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  auto logger = std::make_shared<spdlog::logger>(process, std::move(sink));
  logger->set_formatter(
      std::make_unique<LineFormatter>(log.format == "json" ? JsonLine : PlainLine, process));
  logger->set_level(log.level == "debug"     ? spdlog::level::debug
                    : log.level == "warning" ? spdlog::level::warn
                    : log.level == "error"   ? spdlog::level::err
                                             : spdlog::level::info);
  logger->flush_on(spdlog::level::debug);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace kino::config
