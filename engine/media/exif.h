// The orientation tag of a picture's metadata, read the way Pillow 13's Image.getexif finds it:
// IFD0 of the EXIF block, else the XMP packet. Pure functions; broken metadata means "no
// orientation" and never an error.
#pragma once

#include <string_view>

namespace kino::engine {

// 1..8, or 1 when neither block names one. `exif` is a TIFF stream, with or without "Exif\0\0"
// before it.
int ReadOrientation(std::string_view exif, std::string_view xmp);

}  // namespace kino::engine
