// Images as vision encoders take them: transformers 5.23 CLIPImageProcessor and
// SiglipImageProcessor (preprocessor_config.json), as their Pillow form computes it
// (image_processing_backends.py PilBackend; the other form needs torchvision). Immutable,
// thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <string>

#include "absl/status/statusor.h"
#include "engine/media/frames.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

class ImageProcessor {
 public:
  // `path` names the file in messages. UNIMPLEMENTED: another processor, a filter that is not
  // bicubic, no resize, or a size that is neither exact nor a shortest edge alone.
  // INVALID_ARGUMENT: a value of the wrong type or out of range. See ReadConfig in
  // engine/core/json.h.
  static absl::StatusOr<ImageProcessor> FromJson(const nlohmann::json& json,
                                                 const std::string& path);

  // A picture, of any size, as diffusers passes one of Pillow's -> [1, 3, H, W] float32 on the
  // host: resized, cropped, rescaled, normalized. In a trace it has its shape alone. Throws
  // StatusError INVALID_ARGUMENT: a picture of no pixels.
  at::Tensor Process(const RgbImage& image) const;
  // Pixels in 0..1, [1, 3, H, W] float32 on the host, processed with do_rescale=False, as FramePack
  // passes them -> the same as Process. transformers makes bytes of them before it resizes, rounded
  // towards 0; where all are 0 or 1, it takes them to be bytes of these values. Throws StatusError
  // INVALID_ARGUMENT: a value outside of 0..1.
  at::Tensor ProcessUnit(const at::Tensor& pixels) const;

 private:
  struct Size {
    int height = 0, width = 0;
  };
  ImageProcessor() = default;
  // Of a picture of this size, resized.
  Size Resized(const Size& from) const;
  RgbImage Crop(RgbImage image) const;
  // Resized, cropped, times `scale`, normalized.
  at::Tensor Make(const RgbImage& image, double scale) const;

  int shortest_edge_ = 0;  // 0: exactly size_
  Size size_;
  bool crops_ = false;
  Size crop_;
  double rescale_factor_ = 1.0;  // of a Process
  bool normalizes_ = true;
  std::array<float, 3> mean_{}, std_{};
};

}  // namespace kino::engine
