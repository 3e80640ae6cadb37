#include "engine/media/exif.h"

#include <cstddef>
#include <cstdint>
#include <optional>

namespace kino::engine {
namespace {

constexpr uint64_t kOrientationTag = 274;

// Unsigned integers of a TIFF stream, bounds-checked.
struct TiffBytes {
  std::string_view bytes;
  bool is_big_endian;

  std::optional<uint64_t> Unsigned(uint64_t offset, size_t size) const {
    if (offset > bytes.size() || bytes.size() - offset < size) return std::nullopt;
    uint64_t value = 0;
    for (size_t i = 0; i < size; ++i) {
      const size_t at = offset + (is_big_endian ? i : size - 1 - i);
      value = value << 8 | static_cast<uint8_t>(bytes[at]);
    }
    return value;
  }
};

// The bytes of one value of a TIFF field type, 0 for the types an orientation is not read from.
size_t IntegerSize(uint64_t type) {
  switch (type) {
    case 3:  // SHORT
    case 8:  // SSHORT
      return 2;
    case 4:   // LONG
    case 9:   // SLONG
    case 13:  // IFD
      return 4;
    case 6:  // SBYTE
      return 1;
    case 16:  // LONG8
      return 8;
    default:
      return 0;
  }
}

std::optional<uint64_t> OrientationOfTiff(std::string_view exif) {
  constexpr std::string_view kPrefix("Exif\0\0", 6);
  for (int i = 0; i < 2 && exif.substr(0, 6) == kPrefix; ++i) exif.remove_prefix(6);
  if (exif.size() < 8) return std::nullopt;
  const std::string_view head = exif.substr(0, 4);
  using std::string_view_literals::operator""sv;
  // The third and fourth are wrong, and Pillow takes them all the same. An EXIF block is never a
  // BigTIFF.
  const bool is_known =
      head == "MM\0\x2a"sv || head == "II\x2a\0"sv || head == "MM\x2a\0"sv || head == "II\0\x2a"sv;
  if (!is_known) return std::nullopt;
  const TiffBytes tiff{exif, head[0] == 'M'};
  const std::optional<uint64_t> ifd = tiff.Unsigned(4, 4);
  if (!ifd) return std::nullopt;
  const std::optional<uint64_t> count = tiff.Unsigned(*ifd, 2);
  if (!count) return std::nullopt;
  for (uint64_t i = 0; i < *count; ++i) {
    const uint64_t entry = *ifd + 2 + i * 12;
    const auto tag = tiff.Unsigned(entry, 2);
    const auto type = tiff.Unsigned(entry + 2, 2);
    const auto values = tiff.Unsigned(entry + 4, 4);
    const auto inline_or_offset = tiff.Unsigned(entry + 8, 4);
    if (!tag || !type || !values || !inline_or_offset) return std::nullopt;
    if (*tag != kOrientationTag) continue;
    const size_t size = IntegerSize(*type);
    if (size == 0 || *values == 0) continue;
    const bool is_inline = size * *values <= 4;
    return tiff.Unsigned(is_inline ? entry + 8 : *inline_or_offset, size);
  }
  return std::nullopt;
}

// The first tiff:Orientation="N or tiff:Orientation>N.
std::optional<uint64_t> OrientationOfXmp(std::string_view xmp) {
  constexpr std::string_view kName = "tiff:Orientation";
  for (size_t at = xmp.find(kName); at != std::string_view::npos; at = xmp.find(kName, at + 1)) {
    std::string_view rest = xmp.substr(at + kName.size());
    if (rest.substr(0, 2) == "=\"") {
      rest.remove_prefix(2);
    } else if (rest.substr(0, 1) == ">") {
      rest.remove_prefix(1);
    } else {
      continue;
    }
    if (!rest.empty() && rest[0] >= '0' && rest[0] <= '9') {
      return static_cast<uint64_t>(rest[0] - '0');
    }
  }
  return std::nullopt;
}

}  // namespace

int ReadOrientation(std::string_view exif, std::string_view xmp) {
  std::optional<uint64_t> orientation = OrientationOfTiff(exif);
  if (!orientation) orientation = OrientationOfXmp(xmp);
  return orientation && *orientation >= 1 && *orientation <= 8 ? static_cast<int>(*orientation) : 1;
}

}  // namespace kino::engine
