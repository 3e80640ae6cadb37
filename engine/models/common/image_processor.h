// Images as vision encoders take them: transformers 5.23 CLIPImageProcessor and
// SiglipImageProcessor, as their Pillow form computes it (image_processing_backends.py PilBackend;
// the other form needs torchvision). Immutable, thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/media/frames.h"
#include "engine/text/image_processor_config.h"

namespace kino::engine {

class ImageProcessor {
 public:
  explicit ImageProcessor(const ImageProcessorConfig& config) : config_(config) {}

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
  using Size = ImageProcessorConfig::Size;
  // Of a picture of this size, resized.
  Size Resized(const Size& from) const;
  RgbImage Crop(RgbImage image) const;
  // Resized, cropped, times `scale`, normalized.
  at::Tensor Make(const RgbImage& image, double scale) const;

  ImageProcessorConfig config_;
};

}  // namespace kino::engine
