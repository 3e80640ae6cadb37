// Pictures and videos that clients upload, .npy files, and what kino-media leaves for its client.
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

// After <cstdio>, which jpeglib.h wants but does not include.
#include <jpeglib.h>
#include <png.h>
#include <webp/encode.h>

#include "engine/media/image_decode.h"
#include "engine/media/mp4_writer.h"
#include "engine/media/npy.h"
#include "engine/media/video_decode.h"
#include "server/media/decode_client.h"
#include "server/media/media_wire.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/memory_file.h"
#include "tests/support/temp_dir.h"

namespace kino::media {
// Behind DecodeMedia: what it makes of the file that kino-media has written.
absl::StatusOr<DecodedMedia> ReadOutput(int fd, const DecodeOptions& options);
}  // namespace kino::media

namespace kino::fuzz {
namespace {

// Small, so that a fuzzer does not spend its time on large pictures.
constexpr engine::MediaLimits kLimits = {.max_side_px = 512,
                                         .max_pixels = 128 * 128,
                                         .max_aspect_ratio = 20,
                                         .max_frames = 32,
                                         .max_output_bytes = 4 << 20};

void CheckPicture(const engine::RgbImage& image) {
  Require(image.width > 0 && image.height > 0 && image.width <= kLimits.max_side_px &&
              image.height <= kLimits.max_side_px &&
              int64_t{image.width} * image.height <= kLimits.max_pixels,
          "a picture is within the limits");
  Require(image.rgb.size() == size_t{3} * image.width * image.height, "a picture has its pixels");
}

bool RunImage(std::string_view bytes) {
  const auto image = engine::DecodeImage(bytes, kLimits);
  if (!image.ok()) {
    Require(!image.status().message().empty(), "a refusal says why");
    return false;
  }
  CheckPicture(*image);
  return true;
}

std::vector<uint8_t> Pixels(int width, int height, int channels) {
  std::vector<uint8_t> pixels(static_cast<size_t>(width) * height * channels);
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<uint8_t>(i * 37 + i / 11);
  return pixels;
}

std::string Png(png_uint_32 format, int channels) {
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  image.width = 13;
  image.height = 9;
  image.format = format;
  const std::vector<uint8_t> pixels = Pixels(13, 9, channels);
  std::string out(4096, '\0');
  png_alloc_size_t size = out.size();
  Require(png_image_write_to_memory(&image, out.data(), &size, 0, pixels.data(), 0, nullptr) != 0,
          "libpng writes a picture");
  out.resize(size);
  return out;
}

std::string Jpeg(bool is_progressive, int channels) {
  jpeg_compress_struct jpeg = {};
  jpeg_error_mgr errors = {};
  jpeg.err = jpeg_std_error(&errors);
  jpeg_create_compress(&jpeg);
  unsigned char* out = nullptr;
  unsigned long size = 0;  // NOLINT: libjpeg's type
  jpeg_mem_dest(&jpeg, &out, &size);
  jpeg.image_width = 13;
  jpeg.image_height = 9;
  jpeg.input_components = channels;
  jpeg.in_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(&jpeg);
  if (is_progressive) jpeg_simple_progression(&jpeg);
  jpeg_start_compress(&jpeg, TRUE);
  // A little-endian TIFF with one tag: orientation 6.
  constexpr char kExif[] = "Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0";
  jpeg_write_marker(&jpeg, JPEG_APP0 + 1, reinterpret_cast<const JOCTET*>(kExif), sizeof(kExif));
  std::vector<uint8_t> pixels = Pixels(13, 9, channels);
  while (jpeg.next_scanline < jpeg.image_height) {
    JSAMPROW row = pixels.data() + size_t{jpeg.next_scanline} * 13 * channels;
    jpeg_write_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_compress(&jpeg);
  jpeg_destroy_compress(&jpeg);
  const std::string result(reinterpret_cast<char*>(out), size);
  free(out);
  return result;
}

std::string Webp(bool is_lossless) {
  uint8_t* out = nullptr;
  const std::vector<uint8_t> pixels = Pixels(13, 9, 4);
  const size_t size = is_lossless ? WebPEncodeLosslessRGBA(pixels.data(), 13, 9, 13 * 4, &out)
                                  : WebPEncodeRGB(pixels.data(), 13, 9, 13 * 3, 70, &out);
  Require(size > 0, "libwebp writes a picture");
  const std::string result(reinterpret_cast<char*>(out), size);
  WebPFree(out);
  return result;
}

std::vector<std::string> ImageSeeds() {
  return {Png(PNG_FORMAT_RGB, 3),
          Png(PNG_FORMAT_RGBA, 4),
          Png(PNG_FORMAT_GRAY, 1),
          Jpeg(false, 3),
          Jpeg(true, 3),
          Jpeg(false, 1),
          Webp(true),
          Webp(false)};
}

bool RunVideo(std::string_view bytes) {
  int frames = 0;
  int width = 0;
  int height = 0;
  const auto video = engine::DecodeVideo(bytes, kLimits, [&](const engine::RgbImage& frame) {
    CheckPicture(frame);
    Require(frames == 0 || (frame.width == width && frame.height == height),
            "frames are of one size");
    width = frame.width;
    height = frame.height;
    Require(++frames <= kLimits.max_frames, "no more frames than the limit");
    return absl::OkStatus();
  });
  if (!video.ok()) {
    Require(!video.status().message().empty(), "a refusal says why");
    return false;
  }
  Require(
      video->num_frames == frames && frames > 0 && video->width == width && video->height == height,
      "the summary is that of the frames");
  return true;
}

std::string Mp4(bool is_lossless) {
  std::string out;
  auto writer = engine::Mp4Writer::Create(
      {.width = 32, .height = 16, .fps = 8, .lossless = is_lossless, .threads = 1},
      [&](std::string_view part) {
        out += part;
        return absl::OkStatus();
      });
  Require(writer.ok(), "an MP4 can be written");
  const std::vector<uint8_t> pixels = Pixels(32, 17, 3);
  for (int i = 0; i < 3; ++i) {
    Require((*writer)->AddFrame(pixels.data() + size_t{3} * i).ok(), "a frame can be written");
  }
  Require((*writer)->Finish().ok(), "an MP4 can be finished");
  return out;
}

// Containers and codecs that we read but do not write are made by the ffmpeg program.
std::string Ffmpeg(const std::string& name, const std::string& arguments) {
  const testing::TempDir folder;
  const std::string file = folder.path() + "/" + name;
  const std::string command = "ffmpeg -v error -f lavfi -i testsrc=size=32x16:rate=8 -frames:v 3 " +
                              arguments + " -fflags +bitexact -y " + file;
  Require(std::system(command.c_str()) == 0, "the ffmpeg program writes a video");
  std::ostringstream bytes;
  bytes << std::ifstream(file, std::ios::binary).rdbuf();
  return bytes.str();
}

std::vector<std::string> VideoSeeds() {
  std::vector<std::string> seeds = {Mp4(false), Mp4(true)};
  const std::pair<std::string, std::string> kinds[] = {
      {"ffv1.mkv", "-c:v ffv1"},
      {"vp9.webm", "-c:v libvpx-vp9 -b:v 100k"},
      {"vp8.webm", "-c:v libvpx -b:v 100k"},
      {"hevc.mp4", "-c:v libx265 -pix_fmt yuv420p -x265-params log-level=none:pools=none"},
      {"hevc_10bit.mkv",
       "-c:v libx265 -pix_fmt yuv420p10le -x265-params log-level=none:pools=none"},
      {"av1.mp4", "-c:v libaom-av1 -cpu-used 8"},
      {"mpeg4.mp4", "-c:v mpeg4 -bf 2"},
      {"mjpeg.mov", "-c:v mjpeg -pix_fmt yuvj420p"},
      {"h264.ts", "-c:v libx264 -pix_fmt yuv420p"},
      {"variable.mkv", "-c:v ffv1 -vf setpts=N*N/4/TB -fps_mode passthrough"},
  };
  for (const auto& [name, arguments] : kinds) {
    seeds.push_back(Ffmpeg(name, arguments + " -threads 1"));
  }
  return seeds;
}

bool RunNpy(std::string_view bytes) {
  const auto array = engine::ParseNpy(bytes);
  if (!array.ok()) {
    Require(!array.status().message().empty(), "a refusal says why");
    return false;
  }
  const int64_t element_bytes = array->type == engine::NpyType::kUint8 ? 1 : 4;
  Require(static_cast<int64_t>(array->data.size()) == array->element_count() * element_bytes,
          "an array has its elements");
  return true;
}

std::string Npy(char version, const std::string& header, size_t data_bytes) {
  std::string file = std::string("\x93NUMPY") + version + '\0';
  file += static_cast<char>(header.size());
  file.append(version == 1 ? 1 : 3, '\0');
  return file + header + std::string(data_bytes, 'x');
}

std::vector<std::string> NpySeeds() {
  return {Npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }\n", 6),
          Npy(2, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", 8),
          Npy(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (), }\n", 4)};
}

// kino-media has looked at a stranger's file, so its client trusts nothing of what it has written.
bool RunMediaOutput(std::string_view bytes) {
  const MemoryFile file(bytes);
  const auto media = media::ReadOutput(file.fd(), media::DecodeOptions{});
  if (!media.ok()) return false;
  const size_t frame_bytes = size_t{3} * media->width() * media->height();
  int sum = 0;
  for (int i = 0; i < media->num_frames(); ++i) {
    sum += media->frame(i)[0] + media->frame(i)[frame_bytes - 1];
  }
  Require(sum >= 0 && media->mime_type().size() < 32 && media->codec().size() < 32,
          "the names end in the header");
  return true;
}

std::vector<std::string> MediaOutputSeeds() {
  media::MediaHeader header = {};
  std::memcpy(header.magic, media::kMediaMagic, sizeof(header.magic));
  header.width = 4;
  header.height = 3;
  header.num_frames = 1;
  header.fps_den = 1;
  header.has_frames = 1;
  std::strcpy(header.mime_type, "image/png");
  const auto bytes = [&](size_t frames) {
    return std::string(reinterpret_cast<const char*>(&header), sizeof(header)) +
           std::string(frames * 36, 'x');
  };
  const std::string image = bytes(1);
  header.num_frames = 2;
  header.fps_num = 24;
  std::strcpy(header.mime_type, "video/mp4");
  std::strcpy(header.codec, "h264");
  return {image, bytes(2)};
}

}  // namespace

std::vector<FuzzTarget> MediaTargets() {
  return {{"image", RunImage, ImageSeeds, 3000},
          {"video", RunVideo, VideoSeeds, 300},
          {"npy", RunNpy, NpySeeds, 4000},
          {"media_output", RunMediaOutput, MediaOutputSeeds, 2000}};
}

}  // namespace kino::fuzz
