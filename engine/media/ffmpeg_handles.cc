#include "engine/media/ffmpeg_handles.h"

#include <cstdarg>
#include <cstdio>
#include <mutex>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/core/log.h"

extern "C" {
#include "libavutil/log.h"
}

namespace kino::engine {
namespace {

__attribute__((format(printf, 3, 0))) void OnFfmpegLog(void*, int level, const char* format,
                                                       va_list arguments) {
  if (level > AV_LOG_ERROR) return;
  char line[512];
  std::vsnprintf(line, sizeof(line), format, arguments);
  std::string_view text(line);
  while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  Log(LogLevel::kDebug, absl::StrCat("ffmpeg: ", absl::string_view(text.data(), text.size())));
}

}  // namespace

absl::Status AvError(absl::StatusCode code, std::string_view what, int av_error) {
  char words[AV_ERROR_MAX_STRING_SIZE] = "";
  av_strerror(av_error, words, sizeof(words));
  if (av_error == AVERROR(ENOMEM)) code = absl::StatusCode::kResourceExhausted;
  return absl::Status(code, absl::StrCat(absl::string_view(what.data(), what.size()), ": ", words));
}

void RouteFfmpegLog() {
  static std::once_flag once;
  std::call_once(once, [] { av_log_set_callback(OnFfmpegLog); });
}

}  // namespace kino::engine
