// Text as UTF-8, which is all that protobuf's strings may hold. Free functions.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace kino::command_line {

// Of the first byte that begins no character (overlong forms and surrogates are none), or npos.
size_t FindInvalidUtf8(std::string_view text);
inline bool IsUtf8(std::string_view text) {
  return FindInvalidUtf8(text) == std::string_view::npos;
}

// The longest beginning of `text` of at most `max_bytes` bytes that ends with no part of a
// character.
std::string TruncateUtf8(std::string_view text, size_t max_bytes);

// `text` with U+FFFD in the place of each byte that belongs to no character: what others wrote (a
// file's name, a library's message) fits into a message then.
std::string ToUtf8(std::string_view text);

}  // namespace kino::command_line
