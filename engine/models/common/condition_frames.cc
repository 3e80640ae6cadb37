#include "engine/models/common/condition_frames.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/core/status_bridge.h"
#include "engine/core/trace.h"
#include "engine/media/resize.h"

namespace kino::engine {
at::Tensor ConditionFrames(const MediaInput& media, int64_t first, int64_t count, int height,
                           int width) {
  if (first + count > media.num_frames) {
    throw StatusError(absl::InvalidArgumentError(
        absl::StrCat("the condition has ", media.num_frames, " frames, expected ", first + count)));
  }
  const std::vector<int64_t> shape = {count, height, width, 3};
  if (Trace::Current() != nullptr) {
    const HostScope host;
    return at::empty(shape, at::TensorOptions(at::kMeta).dtype(at::kByte));
  }
  at::Tensor frames = at::empty(shape, at::TensorOptions().dtype(at::kByte));
  const int64_t bytes = int64_t{3} * media.width * media.height;
  for (int64_t i = 0; i < count; ++i) {
    const auto begin = media.rgb.begin() + (first + i) * bytes;
    // Lanczos changes nothing where the size is right, and Pillow leaves it out then.
    if (media.height == height && media.width == width) {
      std::copy(begin, begin + bytes, frames[i].mutable_data_ptr<uint8_t>());
      continue;
    }
    RgbImage image{.width = media.width, .height = media.height, .rgb = {}};
    image.rgb.assign(begin, begin + bytes);
    const RgbImage resized = ValueOrThrow(ResizeLanczos(image, width, height));
    std::copy(resized.rgb.begin(), resized.rgb.end(), frames[i].mutable_data_ptr<uint8_t>());
  }
  return frames;
}

VideoSource ConditionVideo(const MediaInput& media, const VideoSize& size) {
  return {.frames = size.num_frames,
          .height = size.height,
          .width = size.width,
          .read = [&media, size](int64_t first, int64_t count) {
            return ConditionFrames(media, first, count, size.height, size.width);
          }};
}

at::Tensor PixelsOf(const at::Tensor& bytes, const at::TensorOptions& options) {
  if (bytes.is_floating_point()) return bytes.to(options);
  at::Tensor pixels;
  {
    const HostScope host;
    pixels = bytes.to(at::kFloat).div_(255.0).mul_(2.0).sub_(1.0);
  }
  // A copy, which no change of a meta tensor's device is.
  if (bytes.is_meta() && RunsOnGpu(bytes)) return at::empty(pixels.sizes(), options);
  return pixels.to(options);
}

MediaInput BlackImage(int height, int width) {
  const size_t bytes = size_t{3} * static_cast<size_t>(height) * static_cast<size_t>(width);
  return {.width = width, .height = height, .num_frames = 1, .rgb = std::vector<uint8_t>(bytes, 0)};
}

at::Tensor EncoderPixels(const ImageProcessor& processor, const MediaInput& media) {
  return processor.Process({.width = media.width, .height = media.height, .rgb = media.rgb});
}

at::Tensor EncoderPixelsOfFrame(const ImageProcessor& processor, const MediaInput& media,
                                int height, int width) {
  if (Trace::Current() != nullptr)
    return processor.Process({.width = width, .height = height, .rgb = {}});
  const at::Tensor frame =
      PixelsOf(ConditionFrames(media, 0, 1, height, width), at::TensorOptions().dtype(at::kFloat));
  return processor.ProcessUnit(frame.add(1).div(2).permute({0, 3, 1, 2}));
}

}  // namespace kino::engine
