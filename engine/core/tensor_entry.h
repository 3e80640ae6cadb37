// One tensor of a checkpoint, where it lies in the mapped file. Values only; the bytes belong to
// the file's reader (tensor_file.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/core/dtype.h"
#include "engine/core/ggml_type.h"

namespace kino::engine {

struct TensorEntry {
  DType dtype;                 // of the elements; kU8 where they come in blocks
  std::vector<int64_t> shape;  // torch's order ([out, in]), of elements also where they are blocks
  const std::byte* data = nullptr;
  int64_t bytes = 0;  // as stored
  std::string file;   // for messages
  GgmlType block = GgmlType::kNone;
};

// By name.
using TensorMap = std::map<std::string, TensorEntry, std::less<>>;

}  // namespace kino::engine
