// Characters by number and by name, as HTML has them. Pure functions, thread-safe.
#pragma once

#include <optional>
#include <string_view>

namespace kino::engine {

// What Windows-1252 has in place of a C1 control; `c` itself where it has nothing.
char32_t Windows1252(char32_t c);

// Of html.entities.html5: `name` with its semicolon, or without where HTML lets it be left out.
std::optional<std::string_view> EntityText(std::string_view name);

}  // namespace kino::engine
