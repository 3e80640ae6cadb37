// RGB to YUV 4:2:0 as BT.709 at limited range ("tv"), the colours our MP4 files say they have.
// Integer arithmetic only, so the same frame gives the same bytes on every machine. Source: ITU-R
// BT.709-6; chroma is sited left, H.264's default. Pure function.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kino::engine {

// Three planes that the caller owns; strides in bytes.
struct YuvPlanes {
  uint8_t* y;
  uint8_t* u;
  uint8_t* v;
  size_t y_stride;
  size_t uv_stride;
};

// rgb: [H, W, 3]. REQUIRES: width and height are even and positive.
void RgbToYuv420Bt709(const uint8_t* rgb, int width, int height, const YuvPlanes& out);

}  // namespace kino::engine
