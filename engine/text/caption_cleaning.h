// Prompts as diffusers prepares them for models that were trained on captions from the web:
// AllegroPipeline._text_preprocessing and _clean_caption (diffusers 0.42.1, the same as DeepFloyd
// IF's and PixArt's), with beautifulsoup4 4.15 over Python 3.11's html.parser, ftfy 6.3 and
// Unicode 14.0. What ftfy does to mojibake, text that was decoded in the wrong encoding ("doÃ±a"),
// is left out: such text stays as it is. Pure functions, thread-safe.
#pragma once

#include <string>
#include <string_view>

namespace kino::engine {

// In lower case, without links, tags, entities, hash tags, file names and the like, with plain
// dashes and quotes, in NFC: all of _clean_caption, twice. Throws StatusError INVALID_ARGUMENT: the
// caption is not UTF-8, or too long a search for an expression.
std::string CleanCaption(std::string_view caption);

// In lower case, without white space at the ends: what clean_caption=False leaves. Throws as
// CleanCaption.
std::string LowerCaption(std::string_view caption);

}  // namespace kino::engine
