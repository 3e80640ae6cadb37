#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/status.h"
#include "engine/media/exif.h"
#include "engine/media/image_formats.h"
// jpeglib.h needs <cstdio> before it.
#include "jpeglib.h"
// jerror.h needs jpeglib.h before it.
#include "jerror.h"

namespace kino::engine {
namespace {

constexpr int kApp1 = JPEG_APP0 + 1;

// Everything that lives across libjpeg's longjmp: nothing with a destructor is made between setjmp
// and a jump.
struct JpegReader {
  jpeg_decompress_struct jpeg = {};
  jpeg_error_mgr errors = {};
  jpeg_source_mgr source = {};
  std::jmp_buf on_error;
  char message[JMSG_LENGTH_MAX] = "";

  ~JpegReader() { jpeg_destroy_decompress(&jpeg); }
};

[[noreturn]] void OnError(j_common_ptr common) {
  auto* reader = static_cast<JpegReader*>(common->client_data);
  common->err->format_message(common, reader->message);
  std::longjmp(reader->on_error, 1);
}

// Warnings of corrupt data: libjpeg goes on with guessed pixels, and Pillow shows them.
void IgnoreMessage(j_common_ptr, int) {}

void IgnoreSource(j_decompress_ptr) {}

boolean OnSourceEmpty(j_decompress_ptr jpeg) {
  auto* reader = static_cast<JpegReader*>(jpeg->client_data);
  std::strcpy(reader->message, "the file is truncated");
  std::longjmp(reader->on_error, 1);
}

void OnSkip(j_decompress_ptr jpeg, long count) {
  if (count <= 0) return;
  if (static_cast<size_t>(count) > jpeg->src->bytes_in_buffer) OnSourceEmpty(jpeg);
  jpeg->src->next_input_byte += count;
  jpeg->src->bytes_in_buffer -= static_cast<size_t>(count);
}

bool ReadHeader(JpegReader& reader) {
  if (setjmp(reader.on_error)) return false;
  jpeg_save_markers(&reader.jpeg, kApp1, 0xFFFF);
  jpeg_read_header(&reader.jpeg, TRUE);
  return true;
}

// Four components are read as CMYK; everything else has the colours Pillow asks libjpeg for. The
// slow exact DCT and the smooth upsampling are libjpeg's and Pillow's defaults.
bool Start(JpegReader& reader) {
  if (setjmp(reader.on_error)) return false;
  const int components = reader.jpeg.num_components;
  reader.jpeg.out_color_space =
      components == 1 ? JCS_GRAYSCALE : (components == 3 ? JCS_RGB : JCS_CMYK);
  reader.jpeg.dct_method = JDCT_ISLOW;
  jpeg_start_decompress(&reader.jpeg);
  return true;
}

bool ReadRow(JpegReader& reader, uint8_t* row) {
  if (setjmp(reader.on_error)) return false;
  JSAMPROW rows[1] = {row};
  return jpeg_read_scanlines(&reader.jpeg, rows, 1) == 1;
}

// Pillow's CMYK to RGB. It takes every CMYK JPEG for one of Adobe's, which store the inverse, so
// what is in the file is 255 - C and so on.
void CmykRowToRgb(const uint8_t* cmyk, int width, uint8_t* rgb) {
  for (int x = 0; x < width; ++x, cmyk += 4, rgb += 3) {
    const int not_black = cmyk[3];
    for (int c = 0; c < 3; ++c) {
      const int ink = 255 - cmyk[c];
      const int product = ink * not_black + 128;
      const int value = not_black - (((product >> 8) + product) >> 8);
      rgb[c] = static_cast<uint8_t>(value < 0 ? 0 : value);
    }
  }
}

void RowToRgb(const uint8_t* row, int components, int width, uint8_t* rgb) {
  if (components == 4) {
    CmykRowToRgb(row, width, rgb);
  } else if (components == 1) {
    for (int x = 0; x < width; ++x) std::memset(rgb + 3 * static_cast<size_t>(x), row[x], 3);
  } else {
    std::memcpy(rgb, row, 3 * static_cast<size_t>(width));
  }
}

int FindOrientation(const JpegReader& reader) {
  constexpr std::string_view kExif("Exif\0\0", 6);
  constexpr std::string_view kXmp("http://ns.adobe.com/xap/1.0/\0", 29);
  std::string exif, xmp;
  for (jpeg_saved_marker_ptr m = reader.jpeg.marker_list; m != nullptr; m = m->next) {
    const std::string_view data(reinterpret_cast<const char*>(m->data), m->data_length);
    if (m->marker != kApp1) continue;
    // A long EXIF block is continued in further markers, each with its own prefix.
    if (data.substr(0, kExif.size()) == kExif) exif += data.substr(kExif.size());
    if (data.substr(0, kXmp.size()) == kXmp) xmp = data.substr(kXmp.size());
  }
  return ReadOrientation(exif, xmp);
}

}  // namespace

absl::StatusOr<StoredImage> DecodeJpeg(std::string_view bytes, const MediaLimits& limits) {
  JpegReader reader;
  reader.jpeg.err = jpeg_std_error(&reader.errors);
  reader.errors.error_exit = OnError;
  reader.errors.emit_message = IgnoreMessage;
  reader.jpeg.client_data = &reader;
  const auto broken = [&reader] {
    const std::string message = absl::StrCat("JPEG: ", reader.message);
    return reader.errors.msg_code == JERR_OUT_OF_MEMORY ? absl::ResourceExhaustedError(message)
                                                        : absl::InvalidArgumentError(message);
  };
  if (setjmp(reader.on_error)) return broken();
  jpeg_create_decompress(&reader.jpeg);
  // For what libjpeg holds of a progressive file; a 33 megapixel one needs 200 MB.
  reader.jpeg.mem->max_memory_to_use = 512L << 20;
  reader.source.init_source = IgnoreSource;
  reader.source.fill_input_buffer = OnSourceEmpty;
  reader.source.skip_input_data = OnSkip;
  reader.source.resync_to_restart = jpeg_resync_to_restart;
  reader.source.term_source = IgnoreSource;
  reader.source.next_input_byte = reinterpret_cast<const JOCTET*>(bytes.data());
  reader.source.bytes_in_buffer = bytes.size();
  reader.jpeg.src = &reader.source;

  if (!ReadHeader(reader)) return broken();
  KINO_RETURN_IF_ERROR(
      CheckSize("the JPEG image", reader.jpeg.image_width, reader.jpeg.image_height, limits));
  const int components = reader.jpeg.num_components;
  if (components != 1 && components != 3 && components != 4) {
    return absl::InvalidArgumentError(
        absl::StrCat("JPEG: ", components, " components; expected 1, 3 or 4"));
  }
  if (!Start(reader)) return broken();

  StoredImage stored;
  const int width = static_cast<int>(reader.jpeg.output_width);
  const int height = static_cast<int>(reader.jpeg.output_height);
  stored.image.width = width;
  stored.image.height = height;
  stored.image.rgb.resize(3 * static_cast<size_t>(width) * height);
  std::vector<uint8_t> row(static_cast<size_t>(width) * components);
  for (int y = 0; y < height; ++y) {
    if (!ReadRow(reader, row.data())) return broken();
    RowToRgb(row.data(), components, width,
             stored.image.rgb.data() + 3 * static_cast<size_t>(width) * y);
  }
  stored.orientation = FindOrientation(reader);
  return stored;
}

}  // namespace kino::engine
