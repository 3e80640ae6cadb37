#include "tests/fuzz/mutate.h"

#include <algorithm>
#include <iterator>

namespace kino::fuzz {
namespace {

// Where parsers count wrongly.
constexpr uint64_t kNumbers[] = {0,
                                 1,
                                 0x7f,
                                 0x80,
                                 0xff,
                                 0x7fff,
                                 0xffff,
                                 0x7fffffff,
                                 0x80000000,
                                 0xffffffff,
                                 0x7fffffffffffffff,
                                 0x8000000000000000,
                                 0xffffffffffffffff};
constexpr const char* kTexts[] = {"0",
                                  "-1",
                                  "1e999",
                                  "NaN",
                                  "4294967296",
                                  "9223372036854775807",
                                  "18446744073709551616",
                                  "null",
                                  "[]",
                                  "{}",
                                  "[[",
                                  "\"",
                                  "\\u0000",
                                  "\xff",
                                  "true",
                                  ": ",
                                  "\n"};

// A range within `size` bytes, most often a short one.
std::pair<size_t, size_t> Range(size_t size, Dice& dice) {
  const size_t begin = dice.Roll(size + 1);
  const size_t longest = dice.Roll(4) == 0 ? size - begin : std::min<size_t>(size - begin, 16);
  return {begin, dice.Roll(longest + 1)};
}

void Change(std::string& bytes, const std::string& other, Dice& dice) {
  const auto [begin, length] = Range(bytes.size(), dice);
  switch (dice.Roll(8)) {
    case 0:
      if (begin < bytes.size()) bytes[begin] = static_cast<char>(bytes[begin] ^ 1 << dice.Roll(8));
      break;
    case 1:
      if (begin < bytes.size()) bytes[begin] = static_cast<char>(dice.Roll(256));
      break;
    case 2:
      bytes.erase(begin, length);
      break;
    case 3:
      bytes.insert(dice.Roll(bytes.size() + 1), bytes.substr(begin, length));
      break;
    case 4: {
      const uint64_t number = kNumbers[dice.Roll(std::size(kNumbers))];
      const size_t width = size_t{1} << dice.Roll(4);
      const bool is_big_endian = dice.Roll(2) == 1;
      for (size_t i = 0; i < width && begin + i < bytes.size(); ++i) {
        bytes[begin + i] = static_cast<char>(number >> 8 * (is_big_endian ? width - 1 - i : i));
      }
      break;
    }
    case 5:
      bytes.replace(begin, std::min<size_t>(length, 4), kTexts[dice.Roll(std::size(kTexts))]);
      break;
    case 6: {
      const auto [from, count] = Range(other.size(), dice);
      bytes.replace(begin, length, other, from, count);
      break;
    }
    default:
      // Cutting the end is what a broken connection does; rarer, since little is left to parse.
      if (dice.Roll(4) == 0) bytes.resize(begin);
  }
}

}  // namespace

std::string Mutate(const std::vector<std::string>& seeds, Dice& dice) {
  std::string bytes = seeds[dice.Roll(seeds.size())];
  for (uint64_t left = 1 + dice.Roll(8); left > 0; --left) {
    Change(bytes, seeds[dice.Roll(seeds.size())], dice);
  }
  return bytes;
}

}  // namespace kino::fuzz
