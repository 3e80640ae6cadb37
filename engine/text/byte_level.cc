#include "engine/text/byte_level.h"

#include <array>

#include "engine/text/unicode.h"

namespace kino::engine {
namespace {

bool StandsForItself(unsigned byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

using Alphabet = std::array<std::string, 256>;

Alphabet MadeAlphabet() {
  Alphabet alphabet;
  char32_t next = 0x100;
  for (unsigned byte = 0; byte < alphabet.size(); ++byte) {
    AppendUtf8(StandsForItself(byte) ? byte : next++, alphabet[byte]);
  }
  return alphabet;
}

}  // namespace

std::string_view ByteLevelCharacter(unsigned char byte) {
  static const Alphabet& alphabet = *new Alphabet(MadeAlphabet());
  return alphabet[byte];
}

std::string ByteLevelSpelling(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) out += ByteLevelCharacter(static_cast<unsigned char>(byte));
  return out;
}

}  // namespace kino::engine
