#include "scheduler/random.h"

#include <sys/random.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_format.h"

namespace kino::scheduler {

uint64_t SystemRandom::Next() {
  uint64_t value = 0;
  while (true) {
    // Up to 256 bytes come whole or not at all.
    if (getrandom(&value, sizeof(value), 0) == sizeof(value)) return value;
    if (errno != EINTR) {
      std::perror("getrandom");
      std::abort();
    }
  }
}

double UniformDouble(RandomSource& random) {
  return static_cast<double>(random.Next() >> 11) * 0x1p-53;
}

std::string MakeToken(RandomSource& random) {
  const uint64_t high = random.Next();
  return absl::StrFormat("%016x%016x", high, random.Next());
}

std::string MakeId(absl::Time now, RandomSource& random) {
  static constexpr char kDigits[] = "0123456789abcdefghjkmnpqrstvwxyz";
  const uint64_t milliseconds = static_cast<uint64_t>(absl::ToUnixMillis(now)) & 0xffff'ffff'ffff;
  std::string id(26, '0');
  // 10 digits hold 50 bits of time (the top two are zero), 16 digits the 80 random bits.
  for (int i = 0; i < 10; ++i) id[i] = kDigits[(milliseconds >> (5 * (9 - i))) & 31];
  const uint64_t first = random.Next(), second = random.Next();
  for (int i = 0; i < 8; ++i) id[10 + i] = kDigits[(first >> (5 * i)) & 31];
  for (int i = 0; i < 8; ++i) id[18 + i] = kDigits[(second >> (5 * i)) & 31];
  return id;
}

}  // namespace kino::scheduler
