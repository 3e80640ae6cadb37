#include "engine/media/resize.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"

namespace kino::engine {
namespace {

// 8 bits of value and 2 of headroom for the overshoot of negative lobes leave 22 of an int32 for
// the weights.
constexpr int kWeightBits = 32 - 8 - 2;

// How much a source at distance x, in pixels of the coarser of the two, counts; nothing from
// `support` on.
struct Filter {
  double (*weight)(double x);
  double support;
};

constexpr double kLobes = 3.0;

double Sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= M_PI;
  return std::sin(x) / x;
}

double Lanczos(double x) { return x >= -kLobes && x < kLobes ? Sinc(x) * Sinc(x / kLobes) : 0.0; }

constexpr Filter kLanczos = {Lanczos, kLobes};

// Keys' cubic convolution with a = -1/2 (Pillow, Resample.c).
double Cubic(double x) {
  constexpr double kA = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((kA + 2.0) * x - (kA + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * kA;
  return 0.0;
}

constexpr Filter kBicubic = {Cubic, 2.0};

// The sources of each result pixel along one axis: weights[i * stride + k] belongs to source
// first[i] + k.
struct AxisWeights {
  int stride = 0;
  std::vector<int> first;
  std::vector<int> count;
  std::vector<int32_t> weights;
};

AxisWeights MakeAxisWeights(const Filter& filter, int from, int to) {
  const double scale = static_cast<double>(from) / to;
  const double window_scale =
      std::max(scale, 1.0);  // a smaller result averages over a wider window
  const double support = filter.support * window_scale;
  AxisWeights axis;
  axis.stride = static_cast<int>(std::ceil(support)) * 2 + 1;
  axis.first.resize(to);
  axis.count.resize(to);
  axis.weights.assign(static_cast<size_t>(axis.stride) * to, 0);
  std::vector<double> raw(axis.stride);
  for (int i = 0; i < to; ++i) {
    const double center = (i + 0.5) * scale;
    // Pillow's own rounding. NOLINTBEGIN(bugprone-incorrect-roundings)
    const int begin = std::max(static_cast<int>(center - support + 0.5), 0);
    const int end = std::min(static_cast<int>(center + support + 0.5), from);
    // NOLINTEND(bugprone-incorrect-roundings)
    const int count = end - begin;
    const double inverse = 1.0 / window_scale;
    double sum = 0.0;
    for (int k = 0; k < count; ++k) {
      raw[k] = filter.weight((k + begin - center + 0.5) * inverse);
      sum += raw[k];
    }
    for (int k = 0; k < count; ++k) {
      const double weight = (sum != 0.0 ? raw[k] / sum : raw[k]) * (1 << kWeightBits);
      axis.weights[static_cast<size_t>(i) * axis.stride + k] =
          static_cast<int32_t>(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
    axis.first[i] = begin;
    axis.count[i] = count;
  }
  return axis;
}

uint8_t ToByte(int32_t fixed_point) {
  return static_cast<uint8_t>(std::clamp(fixed_point >> kWeightBits, 0, 255));
}

RgbImage ResizeRows(const RgbImage& image, const Filter& filter, int width) {
  const AxisWeights axis = MakeAxisWeights(filter, image.width, width);
  RgbImage out{width, image.height, {}};
  out.rgb.resize(3 * static_cast<size_t>(width) * image.height);
  uint8_t* to = out.rgb.data();
  for (int y = 0; y < image.height; ++y) {
    const uint8_t* row = image.rgb.data() + 3 * static_cast<size_t>(image.width) * y;
    for (int x = 0; x < width; ++x, to += 3) {
      const int32_t* weight = axis.weights.data() + static_cast<size_t>(x) * axis.stride;
      const uint8_t* from = row + 3 * static_cast<size_t>(axis.first[x]);
      int32_t r = 1 << (kWeightBits - 1), g = r, b = r;
      for (int k = 0; k < axis.count[x]; ++k, from += 3) {
        r += from[0] * weight[k];
        g += from[1] * weight[k];
        b += from[2] * weight[k];
      }
      to[0] = ToByte(r);
      to[1] = ToByte(g);
      to[2] = ToByte(b);
    }
  }
  return out;
}

RgbImage ResizeColumns(const RgbImage& image, const Filter& filter, int height) {
  const AxisWeights axis = MakeAxisWeights(filter, image.height, height);
  RgbImage out{image.width, height, {}};
  const size_t row_bytes = 3 * static_cast<size_t>(image.width);
  out.rgb.resize(row_bytes * height);
  std::vector<int32_t> sums(row_bytes);
  for (int y = 0; y < height; ++y) {
    std::fill(sums.begin(), sums.end(), 1 << (kWeightBits - 1));
    for (int k = 0; k < axis.count[y]; ++k) {
      const int32_t weight = axis.weights[static_cast<size_t>(y) * axis.stride + k];
      const uint8_t* from = image.rgb.data() + row_bytes * (axis.first[y] + k);
      for (size_t i = 0; i < row_bytes; ++i) sums[i] += from[i] * weight;
    }
    uint8_t* to = out.rgb.data() + row_bytes * y;
    for (size_t i = 0; i < row_bytes; ++i) to[i] = ToByte(sums[i]);
  }
  return out;
}

absl::StatusOr<RgbImage> Resize(const RgbImage& image, const Filter& filter, int width,
                                int height) {
  if (width < 1 || height < 1 || image.width < 1 || image.height < 1) {
    return absl::InvalidArgumentError(absl::StrCat("resize: from ", image.width, "x", image.height,
                                                   " to ", width, "x", height,
                                                   "; every side must be at least 1"));
  }
  // A pass that would change nothing is left out, as in Pillow: its rounding would still be the
  // identity, but slow.
  if (width == image.width && height == image.height) return image;
  if (width == image.width) return ResizeColumns(image, filter, height);
  if (height == image.height) return ResizeRows(image, filter, width);
  // The order matters to the last bit, since the values between the passes are bytes. Since 13.0
  // (pull request 9549) Pillow begins with the columns where they shrink by more than twice as many
  // pixels as the rows.
  const bool shrinks_height_first =
      height < image.height && image.height - height > 2 * (image.width - width);
  if (shrinks_height_first) return ResizeRows(ResizeColumns(image, filter, height), filter, width);
  return ResizeColumns(ResizeRows(image, filter, width), filter, height);
}

}  // namespace

absl::StatusOr<RgbImage> ResizeLanczos(const RgbImage& image, int width, int height) {
  return Resize(image, kLanczos, width, height);
}

absl::StatusOr<RgbImage> ResizeBicubic(const RgbImage& image, int width, int height) {
  return Resize(image, kBicubic, width, height);
}

}  // namespace kino::engine
