#include "engine/media/color.h"

#include <algorithm>
#include <vector>

namespace kino::engine {
namespace {

constexpr double kRed = 0.2126, kBlue = 0.0722, kGreen = 1.0 - kRed - kBlue;
constexpr int kBits = 16;

constexpr int32_t Fixed(double value) {
  return static_cast<int32_t>(value * (1 << kBits) + (value < 0 ? -0.5 : 0.5));
}

// Luma spans 16..235, chroma 16..240. The green weight is what the others leave, so that grey has
// no colour and white is 235 to the bit.
constexpr int32_t kYScale = Fixed(219.0 / 255.0);
constexpr int32_t kYr = Fixed(kRed * 219.0 / 255.0), kYb = Fixed(kBlue * 219.0 / 255.0);
constexpr int32_t kYg = kYScale - kYr - kYb;
constexpr int32_t kUb = Fixed(0.5 * 224.0 / 255.0);
constexpr int32_t kUr = Fixed(-0.5 * kRed / (1.0 - kBlue) * 224.0 / 255.0), kUg = -kUb - kUr;
constexpr int32_t kVr = Fixed(0.5 * 224.0 / 255.0);
constexpr int32_t kVb = Fixed(-0.5 * kBlue / (1.0 - kRed) * 224.0 / 255.0), kVg = -kVr - kVb;
static_assert(kGreen > 0);

void LumaRow(const uint8_t* rgb, int width, uint8_t* y) {
  for (int x = 0; x < width; ++x, rgb += 3) {
    const int32_t sum = kYr * rgb[0] + kYg * rgb[1] + kYb * rgb[2];
    y[x] = static_cast<uint8_t>((sum + (16 << kBits) + (1 << (kBits - 1))) >> kBits);
  }
}

}  // namespace

void RgbToYuv420Bt709(const uint8_t* rgb, int width, int height, const YuvPlanes& out) {
  const size_t row_bytes = 3 * static_cast<size_t>(width);
  std::vector<int32_t> two_rows(row_bytes);  // the sum of a pair of rows
  for (int y = 0; y < height; y += 2) {
    const uint8_t* top = rgb + row_bytes * y;
    const uint8_t* bottom = top + row_bytes;
    LumaRow(top, width, out.y + out.y_stride * y);
    LumaRow(bottom, width, out.y + out.y_stride * (y + 1));
    for (size_t i = 0; i < row_bytes; ++i) two_rows[i] = top[i] + bottom[i];
    uint8_t* u = out.u + out.uv_stride * (y / 2);
    uint8_t* v = out.v + out.uv_stride * (y / 2);
    for (int x = 0; x < width; x += 2) {
      // Weights 1 2 1 across, centred on the even column where the chroma sample lies; with the
      // pair of rows the sum is 8 times the mean colour.
      const int32_t* here = two_rows.data() + 3 * static_cast<size_t>(x);
      const int32_t* left = x > 0 ? here - 3 : here;
      const int32_t* right = here + 3;
      const int32_t r = left[0] + 2 * here[0] + right[0];
      const int32_t g = left[1] + 2 * here[1] + right[1];
      const int32_t b = left[2] + 2 * here[2] + right[2];
      constexpr int32_t kOffset = (128 << (kBits + 3)) + (1 << (kBits + 2));
      u[x / 2] = static_cast<uint8_t>((kUr * r + kUg * g + kUb * b + kOffset) >> (kBits + 3));
      v[x / 2] = static_cast<uint8_t>((kVr * r + kVg * g + kVb * b + kOffset) >> (kBits + 3));
    }
  }
}

}  // namespace kino::engine
