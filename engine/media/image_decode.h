// PNG, JPEG and WebP bytes to the very pixels that diffusers' load_image gives: PIL.Image.open,
// exif_transpose, convert("RGB"), as Pillow 13.0 does them. So alpha and transparent colours are
// dropped, not blended; 16-bit colour keeps its high byte; 16-bit grey is clipped at 255; ICC
// profiles and gamma are ignored; of an animation the first picture is read. A truncated file is
// refused. Broken EXIF, on which Pillow sometimes fails, counts as absent; a PNG with a palette
// missing, which Pillow shows black, is refused. Pure functions, safe from any thread.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/media/frames.h"

namespace kino::engine {

// INVALID_ARGUMENT for what is no picture of the three types, broken or truncated;
// RESOURCE_EXHAUSTED past a limit; UNIMPLEMENTED in a build without media.
absl::StatusOr<RgbImage> DecodeImage(std::string_view bytes, const MediaLimits& limits);

}  // namespace kino::engine
