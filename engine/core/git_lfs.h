// What git leaves in the place of a large file whose content was not fetched. Free function.
#pragma once

#include <string_view>

namespace kino::engine {

// To be said of such a file, after its name.
inline constexpr char kGitLfsPointer[] =
    "is a git-lfs pointer, not the file itself: run 'git lfs pull' in its repository, or download "
    "it again";

inline bool IsGitLfsPointer(std::string_view bytes) {
  return bytes.starts_with("version https://git-lfs.github.com/spec/");
}

}  // namespace kino::engine
