// The byte-level alphabet: a printable character for each byte, so that any text is a word of it.
// Constant; thread-safe.
//
// Source: Radford et al. 2019, encoder.py (bytes_to_unicode).
#pragma once

#include <string>
#include <string_view>

namespace kino::engine {

// The character (UTF-8) that stands for a byte: itself from ! to ~ and where Latin-1 prints, else
// one from U+0100 on ("Ġ" for a space, "Ċ" for a newline).
std::string_view ByteLevelCharacter(unsigned char byte);

// Each byte's character in turn.
std::string ByteLevelSpelling(std::string_view bytes);

}  // namespace kino::engine
