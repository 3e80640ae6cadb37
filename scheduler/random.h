// The scheduler's only door to randomness: tokens, ids and retry jitter. Thread-safe.
// main() owns one SystemRandom and passes references; tests use tests/support/seeded_random.h.
#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace kino::scheduler {

class RandomSource {
 public:
  virtual ~RandomSource() = default;
  virtual uint64_t Next() = 0;
};

// The kernel's generator (getrandom), fit for tokens. Aborts the process if the kernel has none.
class SystemRandom final : public RandomSource {
 public:
  uint64_t Next() override;
};

// 0 <= result < 1.
double UniformDouble(RandomSource& random);

// 128 random bits as 32 lower-case hexadecimal digits: an attempt's token.
std::string MakeToken(RandomSource& random);

// A 26-character id of [0-9a-z] in Crockford's base 32: 48 bits of milliseconds, then 80 random
// bits (the layout of ULID). Safe in URLs and file names; ids made in different milliseconds sort
// by time.
std::string MakeId(absl::Time now, RandomSource& random);

}  // namespace kino::scheduler
