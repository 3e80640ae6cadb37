// What kino-media leaves in its output file: this header, then the frames, uint8 [T, H, W, 3]. Both
// ends are of one build on one machine, so integers lie as the machine has them. The header is
// written last: a file whose magic is right is complete. The reader trusts none of it, since the
// writer has looked at a stranger's file.
#pragma once

#include <cstdint>

namespace kino::media {

inline constexpr char kMediaMagic[8] = {'K', 'I', 'N', 'O', 'M', 'E', 'D', '1'};

struct MediaHeader {
  char magic[8];
  uint32_t width;
  uint32_t height;
  uint32_t num_frames;  // 1 for an image
  uint32_t fps_num;     // 0 for an image, or when the video does not say
  uint32_t fps_den;
  uint32_t has_frames;  // 0 after a probe: no frame follows
  char mime_type[32];   // ends with a zero
  char codec[32];       // of a video, else empty; ends with a zero
  char reserved[32];
};
static_assert(sizeof(MediaHeader) == 128);

// The descriptors kino-media inherits from its client.
inline constexpr int kInputFd = 3;
inline constexpr int kOutputFd = 4;

}  // namespace kino::media
