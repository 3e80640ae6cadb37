// Mp4Writer in a build without FFmpeg.
#include "engine/media/mp4_writer.h"

namespace kino::engine {

struct Mp4Writer::Stream {};

Mp4Writer::Mp4Writer(std::unique_ptr<Stream> stream) : stream_(std::move(stream)) {}
Mp4Writer::~Mp4Writer() = default;

absl::StatusOr<std::unique_ptr<Mp4Writer>> Mp4Writer::Create(const Mp4Options&, ByteSink) {
  return absl::UnimplementedError(
      "MP4: this build has no FFmpeg (KINO_WITH_MEDIA is OFF); write .npy instead");
}

// Without Create there is no object to call these on.
absl::Status Mp4Writer::AddFrame(const uint8_t*) {
  return absl::UnimplementedError("MP4: no FFmpeg");
}
absl::Status Mp4Writer::Finish() { return absl::UnimplementedError("MP4: no FFmpeg"); }
std::string_view Mp4Writer::encoder_name() const { return ""; }

}  // namespace kino::engine
