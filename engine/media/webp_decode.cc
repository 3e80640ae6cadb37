#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "engine/core/status.h"
#include "engine/media/exif.h"
#include "engine/media/image_formats.h"
#include "webp/decode.h"
#include "webp/demux.h"

namespace kino::engine {
namespace {

struct DeleteDecoder {
  void operator()(WebPAnimDecoder* decoder) const { WebPAnimDecoderDelete(decoder); }
};

std::string_view FindChunk(const WebPDemuxer* demuxer, const char* name) {
  WebPChunkIterator chunk;
  std::string_view found;
  // The bytes lie in the input, so they outlive the iterator.
  if (WebPDemuxGetChunk(demuxer, name, 1, &chunk) != 0) {
    found = std::string_view(reinterpret_cast<const char*>(chunk.chunk.bytes), chunk.chunk.size);
    WebPDemuxReleaseChunkIterator(&chunk);
  }
  return found;
}

}  // namespace

// Through the animation decoder even for a still picture, as Pillow does: the first frame lies on a
// transparent black canvas, unblended.
absl::StatusOr<StoredImage> DecodeWebp(std::string_view bytes, const MediaLimits& limits) {
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  WebPBitstreamFeatures features;
  if (const VP8StatusCode code = WebPGetFeatures(data, bytes.size(), &features);
      code != VP8_STATUS_OK) {
    return absl::InvalidArgumentError(
        absl::StrCat("WebP: the header is broken or truncated (code ", code, ")"));
  }
  KINO_RETURN_IF_ERROR(CheckSize("the WebP image", features.width, features.height, limits));

  WebPAnimDecoderOptions options;
  if (WebPAnimDecoderOptionsInit(&options) == 0) {
    return absl::InternalError("WebP: the library's version differs from its header's");
  }
  options.color_mode = MODE_RGBA;
  options.use_threads = 0;
  const WebPData input = {data, bytes.size()};
  const std::unique_ptr<WebPAnimDecoder, DeleteDecoder> decoder(
      WebPAnimDecoderNew(&input, &options));
  WebPAnimInfo info;
  if (decoder == nullptr || WebPAnimDecoderGetInfo(decoder.get(), &info) == 0) {
    return absl::InvalidArgumentError("WebP: the file is broken or truncated");
  }
  // The canvas is what is allocated; WebPGetFeatures may have read a frame's own size.
  KINO_RETURN_IF_ERROR(CheckSize("the WebP image", info.canvas_width, info.canvas_height, limits));
  uint8_t* rgba = nullptr;
  int timestamp_ms = 0;
  if (WebPAnimDecoderGetNext(decoder.get(), &rgba, &timestamp_ms) == 0) {
    return absl::InvalidArgumentError("WebP: the pixels are broken or truncated");
  }
  StoredImage stored;
  stored.image.width = static_cast<int>(info.canvas_width);
  stored.image.height = static_cast<int>(info.canvas_height);
  const size_t pixels = static_cast<size_t>(info.canvas_width) * info.canvas_height;
  stored.image.rgb.resize(3 * pixels);
  for (size_t i = 0; i < pixels; ++i) std::memcpy(&stored.image.rgb[3 * i], rgba + 4 * i, 3);
  const WebPDemuxer* demuxer = WebPAnimDecoderGetDemuxer(decoder.get());
  stored.orientation = ReadOrientation(FindChunk(demuxer, "EXIF"), FindChunk(demuxer, "XMP "));
  return stored;
}

}  // namespace kino::engine
