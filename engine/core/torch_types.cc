#include "engine/core/torch_types.h"

#include <c10/util/Exception.h>

namespace kino::engine {

c10::ScalarType ToTorch(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return c10::ScalarType::Bool;
    case DType::kU8:
      return c10::ScalarType::Byte;
    case DType::kI8:
      return c10::ScalarType::Char;
    case DType::kI16:
      return c10::ScalarType::Short;
    case DType::kU16:
      return c10::ScalarType::UInt16;
    case DType::kI32:
      return c10::ScalarType::Int;
    case DType::kU32:
      return c10::ScalarType::UInt32;
    case DType::kI64:
      return c10::ScalarType::Long;
    case DType::kU64:
      return c10::ScalarType::UInt64;
    case DType::kF8E4M3:
      return c10::ScalarType::Float8_e4m3fn;
    case DType::kF8E5M2:
      return c10::ScalarType::Float8_e5m2;
    case DType::kF16:
      return c10::ScalarType::Half;
    case DType::kBF16:
      return c10::ScalarType::BFloat16;
    case DType::kF32:
      return c10::ScalarType::Float;
    case DType::kF64:
      return c10::ScalarType::Double;
  }
  TORCH_CHECK(false, "dtype ", static_cast<int>(dtype), " is not in the enum");
}

}  // namespace kino::engine
