#include "server/convert/condition_media.h"

#include <cstring>
#include <utility>

namespace kino::convert {
namespace {

absl::StatusOr<engine::MediaInput> ToMediaInput(absl::StatusOr<media::DecodedMedia> decoded,
                                                engine::ConditionKind kind) {
  if (!decoded.ok()) return decoded.status();
  const bool expects_image = kind == engine::ConditionKind::kImage;
  if (expects_image == decoded->is_video()) {
    return absl::InvalidArgumentError(expects_image ? "expected an image, got a video"
                                                    : "expected a video, got an image");
  }
  engine::MediaInput out;
  out.width = decoded->width();
  out.height = decoded->height();
  out.num_frames = decoded->num_frames();
  out.fps = decoded->fps();
  const size_t frame_bytes =
      size_t{3} * static_cast<size_t>(out.width) * static_cast<size_t>(out.height);
  out.rgb.resize(frame_bytes * static_cast<size_t>(out.num_frames));
  for (int i = 0; i < out.num_frames; ++i) {
    std::memcpy(out.rgb.data() + frame_bytes * static_cast<size_t>(i), decoded->frame(i),
                frame_bytes);
  }
  return out;
}

}  // namespace

absl::StatusOr<engine::MediaInput> DecodeCondition(const std::string& path,
                                                   engine::ConditionKind kind,
                                                   const media::DecodeOptions& options) {
  return ToMediaInput(media::DecodeMediaFile(path, options), kind);
}

absl::StatusOr<engine::MediaInput> DecodeConditionBytes(const std::string& bytes,
                                                        engine::ConditionKind kind,
                                                        const media::DecodeOptions& options) {
  return ToMediaInput(media::DecodeMediaBytes(bytes, options), kind);
}

}  // namespace kino::convert
