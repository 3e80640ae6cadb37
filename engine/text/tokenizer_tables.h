// What Hugging Face tokenizers 0.23 believes about characters, written by make_tokenizer_tables.py.
// Its regular expressions, its lower case and its normal forms each go by a Unicode version of
// their own, and so do these. Constant.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/text/normal_form.h"

namespace kino::engine {

// Unicode's General_Category; make_tokenizer_tables.py writes these numbers.
enum class Category : uint8_t {
  kCn,
  kCc,
  kCf,
  kCo,
  kLu,
  kLl,
  kLt,
  kLm,
  kLo,
  kMn,
  kMc,
  kMe,
  kNd,
  kNl,
  kNo,
  kPc,
  kPd,
  kPs,
  kPe,
  kPi,
  kPf,
  kPo,
  kSm,
  kSc,
  kSk,
  kSo,
  kZs,
  kZl,
  kZp,
};

// (first code point << 8 | Category), ascending: each row's category holds up to the next row.
extern const uint32_t kCategoryBoundaries[];
extern const size_t kCategoryBoundaryCount;

// As LowerRun and NormalForms say.
extern const LowerRun kTokenizerLowerRuns[];
extern const size_t kTokenizerLowerRunCount;
extern const uint32_t kTokenizerCombiningBoundaries[];
extern const size_t kTokenizerCombiningBoundaryCount;
extern const uint32_t kTokenizerUnknownDecompositions[];
extern const size_t kTokenizerUnknownDecompositionCount;

}  // namespace kino::engine
