// The decoders in a build without FFmpeg and the image libraries.
#include "engine/media/image_decode.h"
#include "engine/media/video_decode.h"

namespace kino::engine {

absl::StatusOr<RgbImage> DecodeImage(std::string_view, const MediaLimits&) {
  return absl::UnimplementedError(
      "this build reads no image files (KINO_WITH_MEDIA is OFF); give .npy instead");
}

absl::StatusOr<VideoInfo> DecodeVideo(std::string_view, const MediaLimits&, const FrameSink&) {
  return absl::UnimplementedError(
      "this build reads no video files (KINO_WITH_MEDIA is OFF); give .npy instead");
}

}  // namespace kino::engine
