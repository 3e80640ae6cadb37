#include "server/frontend/rpc/probe.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

namespace kino::frontend {
namespace {

// The client learns no path and no errno of ours.
absl::Status NotNow(const std::string& why) {
  spdlog::warn("an upload cannot be decoded now: {}", why);
  return absl::UnavailableError("the file cannot be decoded just now; try again");
}

}  // namespace

MediaProbe MakeProbe(const config::LimitsConfig& limits, media::DecodeOptions options) {
  options.is_probe = true;
  options.max_pixels = limits.max_image_pixels;
  options.max_input_bytes = limits.max_upload_bytes;
  return [options](const std::string& path) -> absl::StatusOr<ProbedMedia> {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return NotNow(std::strerror(errno));
    const absl::StatusOr<media::DecodedMedia> media = media::DecodeMedia(fd, options);
    close(fd);
    if (media.ok()) {
      return ProbedMedia{.content_type = media->mime_type(),
                         .width = media->width(),
                         .height = media->height(),
                         .num_frames = media->num_frames(),
                         .fps = media->fps()};
    }
    const std::string message(media.status().message());
    switch (media.status().code()) {
      case absl::StatusCode::kInvalidArgument:
        return media.status();
      // A limit that the file passes.
      case absl::StatusCode::kResourceExhausted:
        return absl::InvalidArgumentError(message);
      case absl::StatusCode::kCancelled:
        return absl::UnavailableError("the server is stopping; send the file again");
      // Memory or descriptors that this process has not got, or a machine that is too busy.
      case absl::StatusCode::kUnavailable:
      case absl::StatusCode::kDeadlineExceeded:
        return NotNow(message);
      default:
        return media.status();
    }
  };
}

}  // namespace kino::frontend
