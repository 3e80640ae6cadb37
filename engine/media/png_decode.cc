#include <csetjmp>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/core/status.h"
#include "engine/media/exif.h"
#include "engine/media/image_formats.h"
#include "png.h"

namespace kino::engine {
namespace {

// Everything that lives across libpng's longjmp: nothing with a destructor is made between setjmp
// and a jump.
struct PngReader {
  std::string_view rest;
  png_structp png = nullptr;
  png_infop info = nullptr;
  png_infop end_info = nullptr;
  char message[160] = "";

  png_uint_32 width = 0;
  png_uint_32 height = 0;
  int bit_depth = 0;
  int color_type = 0;
  int passes = 1;
  size_t row_bytes = 0;

  ~PngReader() {
    if (png != nullptr) png_destroy_read_struct(&png, &info, &end_info);
  }
};

[[noreturn]] void OnError(png_structp png, png_const_charp message) {
  auto* reader = static_cast<PngReader*>(png_get_error_ptr(png));
  std::strncpy(reader->message, message, sizeof(reader->message) - 1);
  png_longjmp(png, 1);
}

void OnWarning(png_structp, png_const_charp) {}

void OnRead(png_structp png, png_bytep out, size_t size) {
  auto* reader = static_cast<PngReader*>(png_get_io_ptr(png));
  if (reader->rest.size() < size) png_error(png, "the file is truncated");
  std::memcpy(out, reader->rest.data(), size);
  reader->rest.remove_prefix(size);
}

bool ReadHeader(PngReader& reader) {
  if (setjmp(png_jmpbuf(reader.png))) return false;
  png_read_info(reader.png, reader.info);
  png_get_IHDR(reader.png, reader.info, &reader.width, &reader.height, &reader.bit_depth,
               &reader.color_type, nullptr, nullptr, nullptr);
  return true;
}

// Samples of fewer than 8 bits become bytes: palette indices as they are, grey scaled to 0..255 as
// Pillow scales it. 16-bit colour keeps its high byte; 16-bit grey stays two bytes.
bool StartRows(PngReader& reader) {
  if (setjmp(png_jmpbuf(reader.png))) return false;
  if (reader.color_type == PNG_COLOR_TYPE_PALETTE) {
    png_set_packing(reader.png);
  } else if (reader.bit_depth < 8) {
    png_set_expand_gray_1_2_4_to_8(reader.png);
  } else if (reader.bit_depth == 16 && reader.color_type != PNG_COLOR_TYPE_GRAY) {
    png_set_strip_16(reader.png);
  }
  reader.passes = png_set_interlace_handling(reader.png);
  png_read_update_info(reader.png, reader.info);
  reader.row_bytes = png_get_rowbytes(reader.png, reader.info);
  return true;
}

// REQUIRES: `samples` holds all rows when the file is interlaced, else one row, handed to `take` as
// it is read.
template <typename TakeRow>
bool ReadRows(PngReader& reader, uint8_t* samples, const TakeRow& take) {
  if (setjmp(png_jmpbuf(reader.png))) return false;
  const bool is_interlaced = reader.passes > 1;
  for (int pass = 0; pass < reader.passes; ++pass) {
    for (png_uint_32 y = 0; y < reader.height; ++y) {
      uint8_t* row = samples + (is_interlaced ? y * reader.row_bytes : 0);
      png_read_row(reader.png, row, nullptr);
      if (pass == reader.passes - 1) take(y, row);
    }
  }
  return true;
}

// Chunks after the pixels may hold the orientation; as in Pillow, a file that ends here is complete
// enough.
void ReadEnd(PngReader& reader) {
  if (setjmp(png_jmpbuf(reader.png))) return;
  png_read_end(reader.png, reader.end_info);
}

// One row of samples, in the layout StartRows asked for, to RGB.
void RowToRgb(const PngReader& reader, const png_color* palette, int palette_size,
              const uint8_t* row, uint8_t* rgb) {
  for (size_t x = 0; x < reader.width; ++x, rgb += 3) {
    switch (reader.color_type) {
      case PNG_COLOR_TYPE_PALETTE: {
        // An index past the palette is black in Pillow.
        const bool is_known = row[x] < palette_size;
        rgb[0] = is_known ? palette[row[x]].red : uint8_t{0};
        rgb[1] = is_known ? palette[row[x]].green : uint8_t{0};
        rgb[2] = is_known ? palette[row[x]].blue : uint8_t{0};
        break;
      }
      case PNG_COLOR_TYPE_GRAY: {
        // Pillow's I;16 to RGB clips: any 16-bit value from 255 up is white.
        const uint8_t grey = reader.bit_depth < 16 ? row[x]
                             : row[2 * x] != 0     ? uint8_t{255}
                                                   : row[2 * x + 1];
        std::memset(rgb, grey, 3);
        break;
      }
      case PNG_COLOR_TYPE_GRAY_ALPHA:
        std::memset(rgb, row[2 * x], 3);
        break;
      case PNG_COLOR_TYPE_RGB:
        std::memcpy(rgb, row + 3 * x, 3);
        break;
      default:  // PNG_COLOR_TYPE_RGB_ALPHA
        std::memcpy(rgb, row + 4 * static_cast<size_t>(x), 3);
        break;
    }
  }
}

// "\nexif\n      42\n45786966...": ImageMagick's way of keeping EXIF in a text chunk.
std::string DecodeRawProfile(absl::string_view text) {
  for (int line = 0; line < 3; ++line) {
    const size_t end = text.find('\n');
    if (end == absl::string_view::npos) return "";
    text.remove_prefix(end + 1);
  }
  std::string hex;
  for (const char c : text) {
    if (c == '\n') continue;
    if (!absl::ascii_isxdigit(static_cast<unsigned char>(c))) return "";
    hex.push_back(c);
  }
  if (hex.size() % 2 != 0) return "";
  return absl::HexStringToBytes(hex);
}

int FindOrientation(const PngReader& reader) {
  std::string exif, raw_profile, xmp;
  for (png_infop info : {reader.info, reader.end_info}) {
    png_uint_32 exif_size = 0;
    png_bytep exif_bytes = nullptr;
    if (png_get_eXIf_1(reader.png, info, &exif_size, &exif_bytes) != 0) {
      exif.assign(reinterpret_cast<const char*>(exif_bytes), exif_size);
    }
    png_textp texts = nullptr;
    const int count = png_get_text(reader.png, info, &texts, nullptr);
    for (int i = 0; i < count; ++i) {
      const absl::string_view key(texts[i].key);
      const size_t size = texts[i].itxt_length != 0 ? texts[i].itxt_length : texts[i].text_length;
      const absl::string_view text(texts[i].text == nullptr ? "" : texts[i].text,
                                   texts[i].text == nullptr ? 0 : size);
      if (key == "Raw profile type exif") raw_profile = DecodeRawProfile(text);
      if (key == "XML:com.adobe.xmp") xmp = std::string(text);
    }
  }
  return ReadOrientation(exif.empty() ? raw_profile : exif, xmp);
}

}  // namespace

absl::StatusOr<StoredImage> DecodePng(std::string_view bytes, const MediaLimits& limits) {
  PngReader reader;
  reader.rest = bytes;
  reader.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader, OnError, OnWarning);
  if (reader.png == nullptr) return absl::ResourceExhaustedError("PNG: out of memory");
  reader.info = png_create_info_struct(reader.png);
  reader.end_info = png_create_info_struct(reader.png);
  if (reader.info == nullptr || reader.end_info == nullptr) {
    return absl::ResourceExhaustedError("PNG: out of memory");
  }
  png_set_read_fn(reader.png, &reader, OnRead);
  // Pillow refuses a wrong checksum in any chunk before the pixels, an ancillary one's too.
  png_set_crc_action(reader.png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
  png_set_chunk_malloc_max(reader.png, 8 << 20);
  png_set_chunk_cache_max(reader.png, 128);
  const auto broken = [&reader] {
    return absl::InvalidArgumentError(absl::StrCat("PNG: ", reader.message));
  };
  if (!ReadHeader(reader)) return broken();
  KINO_RETURN_IF_ERROR(CheckSize("the PNG image", reader.width, reader.height, limits));
  if (!StartRows(reader)) return broken();

  png_colorp palette = nullptr;
  int palette_size = 0;
  png_get_PLTE(reader.png, reader.info, &palette, &palette_size);

  StoredImage stored;
  stored.image.width = static_cast<int>(reader.width);
  stored.image.height = static_cast<int>(reader.height);
  const size_t rgb_row_bytes = 3 * static_cast<size_t>(reader.width);
  stored.image.rgb.resize(rgb_row_bytes * reader.height);
  std::vector<uint8_t> samples(reader.row_bytes * (reader.passes > 1 ? reader.height : 1));
  const auto take = [&](png_uint_32 y, const uint8_t* row) {
    RowToRgb(reader, palette, palette_size, row, stored.image.rgb.data() + y * rgb_row_bytes);
  };
  if (!ReadRows(reader, samples.data(), take)) return broken();
  ReadEnd(reader);
  stored.orientation = FindOrientation(reader);
  return stored;
}

}  // namespace kino::engine
